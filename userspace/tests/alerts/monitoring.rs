//! `scripts/monitoring`: each expression of the rules and the dashboard, asked of a real Prometheus that has scraped a real
//! gateway and a real client.
//!
//! Each must be understood; each series and each label that it names must be there; and it must have an answer, except
//! where it asks for trouble that there isn't.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::pair::{FORWARD_PORT, LIMIT, Place, path, until_within};
use crate::rig::{self, CLIENT_V4, GATEWAY_V4, HttpServer, Ns, ORIGIN_V4, Proc, Rig};

const PROMETHEUS: &str = "http://127.0.0.1:9090";
/// A rule that fires: there is a client.
const SOMEBODY: &str = "connections >= 1";

fn file(name: &str) -> PathBuf {
    rig::checkout().join("scripts/monitoring").join(name)
}

/// Where an expression is from, and what it is.
struct Asked {
    from: String,
    expression: String,
    /// It asks for what is rarely there.
    is_of_trouble: bool,
}

/// The expressions of the dashboard, as Grafana would send them.
fn dashboard() -> Vec<Asked> {
    let text = fs::read_to_string(file("grafana-dashboard.json")).expect("read the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let mut asked = Vec::new();
    for panel in dashboard["panels"].as_array().expect("a dashboard has panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("a target has an expression");
            asked.push(Asked {
                from: format!("panel {}", panel["title"]),
                is_of_trouble: expression.ends_with("> 0"),
                expression: as_grafana_sends(expression),
            });
        }
    }
    asked
}

fn as_grafana_sends(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
}

/// The expressions of the rules, as Prometheus has read them.
fn rules(rig: &Rig) -> Vec<Asked> {
    let groups = ask(rig, "rules", "");
    let rules = groups["groups"].as_array().expect("rules have groups").iter().flat_map(|group| {
        assert_eq!(group["name"], "beam");
        group["rules"].as_array().expect("a group has rules")
    });
    let asked = |rule: &Value| {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        Asked {
            from: format!("rule {}", rule["name"]),
            expression: rule["query"].as_str().expect("a rule has a query").to_owned(),
            is_of_trouble: rule["name"] != "BeamAlertFiring",
        }
    };
    rules.map(asked).collect()
}

/// `GET /api/v1/PAGE?query=QUERY`, its data.
fn ask(rig: &Rig, page: &str, query: &str) -> Value {
    let mut curl = rig.command(Ns::Gateway, "curl");
    curl.args(["-q", "-sS", "--noproxy", "*", "-G", "--data-urlencode", &format!("query={query}")]);
    let out = curl.arg(format!("{PROMETHEUS}/api/v1/{page}")).output().expect("run curl");
    let complaint = String::from_utf8_lossy(&out.stderr);
    let answer: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{query}: {e}: {complaint}"));
    assert_eq!(answer["status"], "success", "{query}: {answer:#}");
    answer["data"].clone()
}

fn series(rig: &Rig, query: &str) -> Vec<Value> {
    ask(rig, "query", query)["result"].as_array().expect("a result").clone()
}

/// Prometheus on the gateway's loopback, which scrapes both ends each second.
fn prometheus(rig: &Rig) -> Proc {
    let config = rig.directory().join("prometheus.yml");
    let targets = format!("['127.0.0.1:9465', '{CLIENT_V4}:9465']");
    let text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: ['{}']\n\
         scrape_configs: [{{ job_name: beam, static_configs: [{{ targets: {targets} }}] }}]\n",
        file("beam.rules.yml").display()
    );
    fs::write(&config, text).expect("write Prometheus' configuration");
    let mut command = rig.command(Ns::Gateway, "prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", rig.directory().join("tsdb").display()));
    command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=info"]).stdout(Stdio::null());
    let prometheus = Proc::spawn("prometheus", &mut command);
    prometheus.wait_for_line("Server is ready to receive web requests", LIMIT);
    prometheus
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is() {
    if !rig::root_or_skip("rules_and_dashboard_ask_for_what_there_is") {
        return;
    }
    let place = Place::new();
    let rig = &place.rig;
    // Nobody listens there: the notice is lost, and counted.
    let flags = ["--alert", SOMEBODY, "--alert-webhook", "http://127.0.0.1:1/"];
    let flags = [&["--xdp", "native", "-i", "g0", "--metrics", "127.0.0.1:9465"], &flags[..]].concat();
    let _gateway = place.gateway(GATEWAY_V4, &flags);
    let server = HttpServer::start(rig, Ns::Origin, ORIGIN_V4, 0);
    let metrics = format!("{CLIENT_V4}:9465");
    let flags = ["--xdp", "off", "--metrics", &metrics];
    let _client = place.client(GATEWAY_V4, &server.address().to_string(), &flags);
    let mut prometheus = prometheus(rig);

    // Traffic between scrapes, until rates are seen of all that moves.
    let moves = "rate(beam_payload_bytes_total[1m]) > 0 and on (instance) rate(beam_handshake_seconds_count[1m]) >= 0";
    let fetch_and_look = || {
        place.curl(&[&format!("http://127.0.0.1:{FORWARD_PORT}/100000")]);
        (
            series(rig, moves).len(),
            series(rig, "count by (instance) (ALERTS{alertname=\"BeamAlertFiring\"})").len(),
        )
    };
    let limit = Duration::from_secs(30);
    until_within(limit, "both ends are scraped twice", fetch_and_look, |&(moving, firing)| {
        moving >= 2 && firing >= 1
    });

    let mut wrong = Vec::new();
    let asked: Vec<Asked> = dashboard().into_iter().chain(rules(rig)).collect();
    assert!(asked.len() >= 60, "only {} expressions were found", asked.len());
    for Asked { from, expression, is_of_trouble } in &asked {
        if series(rig, expression).is_empty() && !is_of_trouble {
            wrong.push(format!("{from}: no answer to {expression}"));
        }
        for what in named(expression) {
            if series(rig, &format!("count({what})")).is_empty() {
                wrong.push(format!("{from}: there is no {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} expressions:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
    assert_eq!(prometheus.terminate(LIMIT).code(), Some(0));
}

/// What an expression takes for granted, as selectors: each metric, and each of its labels, also those that it is grouped
/// by. A grammar of PromQL is Prometheus' own; this finds names and braces in what Prometheus has understood.
fn named(expression: &str) -> BTreeSet<String> {
    let metrics = ["beam_", "process_"];
    let mut selectors = BTreeSet::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        let length = rest[start..].find(|c| !is_name(c)).unwrap_or(rest.len() - start);
        let (name, behind) = rest[start..].split_at(length);
        rest = behind;
        if !metrics.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        selectors.insert(name.to_owned());
        let Some(braced) = behind.strip_prefix('{') else { continue };
        let (matchers, _) = braced.split_once('}').expect("Prometheus has found the brace");
        for matcher in matchers.split("\",").filter(|matcher| !matcher.is_empty()) {
            let label: String = matcher.trim().chars().take_while(|&c| is_name(c)).collect();
            selectors.insert(format!("{name}{{{label}!=\"\"}}"));
            // What is asked for by its value has to be one of its values.
            if let Some((_, value)) = matcher.split_once("=\"").filter(|(label, _)| !label.ends_with('!')) {
                selectors.insert(format!("{name}{{{label}=\"{}\"}}", value.trim_end_matches('"')));
            }
        }
        let grouped = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
        for (labels, of) in grouped.filter(|(_, of)| of.contains(name)) {
            let next = of.find("by (").unwrap_or(of.len());
            if of[..next].contains(name) {
                selectors.extend(labels.split(", ").map(|label| format!("{name}{{{label}!=\"\"}}")));
            }
        }
    }
    selectors
}

#[test]
fn names_in_an_expression_are_found() {
    let found = named(
        r#"sum by (a, b) (rate(beam_x_total{p="q",r=~".*"}[1m])) > 0.5 * process_y and up{z="1"} == 1"#,
    );
    let wanted = [
        "beam_x_total",
        r#"beam_x_total{a!=""}"#,
        r#"beam_x_total{b!=""}"#,
        r#"beam_x_total{p!=""}"#,
        r#"beam_x_total{p="q"}"#,
        r#"beam_x_total{r!=""}"#,
        "process_y",
    ];
    assert_eq!(found, wanted.map(String::from).into());
}

/// Prometheus' own judgement of the rules: their syntax, and when they fire.
#[test]
fn the_rules_pass_promtool() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alerts/rules.test.yml");
    let runs: [(&[&str], PathBuf); 2] =
        [(&["check", "rules"], file("beam.rules.yml")), (&["test", "rules"], tests)];
    for (args, on) in runs {
        let Ok(ran) = Command::new("promtool").args(args).arg(path(&on)).output() else {
            use std::io::Write as _;
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: needs promtool: the_rules_pass_promtool (scripts/setup)"
            );
            return;
        };
        let said = [ran.stdout, ran.stderr].concat();
        assert!(ran.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&said));
    }
}
