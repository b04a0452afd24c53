//! Goal: every option means what the table says, everything else is refused by name, and what is printed reads back.
use super::*;

fn policy(text: &str) -> ClientPolicy {
    ClientPolicy::parse(text.split_whitespace()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    ClientPolicy::parse(text.split_whitespace()).unwrap_err().to_string()
}

#[test]
fn options_read_and_print() {
    for text in [
        "",
        "max-flows=1 max-rate=250M max-connections=4294967295",
        "allow=10.1.0.0/16:80,443 allow=[2001:db8::/32] allow=*.example.com:443",
        "listen=8080 listen=*:8000-8999,22 listen=198.18.0.1:1 listen=[2001:db8::1]:1-65535",
        "routes=10.2.0.0/16 routes=2001:db8:7::/48",
        "max-flows=3 disabled",
    ] {
        assert_eq!(policy(text).to_string(), text);
    }
    assert_eq!(policy("max-rate=1000k"), policy("max-rate=1M"));
}

#[test]
fn what_is_wrong_is_said() {
    for (text, wanted) in [
        ("max-flow=1", "unknown option \"max-flow\""),
        ("admin", "unknown option \"admin\""),
        ("beam_secret", "may be a token"),
        ("disabled=yes", "unknown option \"disabled\""),
        ("max-flows=0", "max-flows=0: wanted a number from 1"),
        ("max-flows=+1", "max-flows=+1"),
        ("max-flows=1 max-flows=2", "max-flows is there twice"),
        ("max-connections=4294967296", "max-connections=4294967296"),
        ("max-rate=fast", "max-rate: \"fast\" is no rate"),
        ("max-rate=1M max-rate=1M", "max-rate is there twice"),
        ("allow=10.0.0.1/8", "allow=10.0.0.1/8: it has bits set"),
        ("listen=", "listen=: \"\" is not a port"),
        ("listen=localhost:80", "\"localhost\" is not an IP address"),
        ("listen=[::1]80", "listen=[::1]80: after [ADDRESS"),
        ("routes=10.0.0.0/33", "prefix length \"33\""),
        ("routes=example.com", "\"example.com\" is not an IP address"),
        ("disabled disabled", "disabled is there twice"),
    ] {
        let said = error(text);
        assert!(said.contains(wanted), "{text}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let many = "routes=10.0.0.0/8 ".repeat(RULES_PER_CLIENT_MAX + 1);
    assert!(error(&many).contains("more than 64 of routes="));
}

fn check(gateway: &[&str], client: &str, host: Option<&str>, addr: &str) -> Result<(), Reason> {
    let allow: Vec<String> = gateway.iter().map(|&rule| rule.to_owned()).collect();
    let gateway = Policy::parse(&allow, &[]).unwrap();
    let addr: SocketAddr = addr.parse().unwrap();
    let client = policy(client);
    let verdict = client.check(&gateway, host, addr).map_err(|denied| denied.reason);
    // What the address may do, the name before it could.
    let literal = addr.ip().to_string();
    let asked = client.check_name_possible(&gateway, host.unwrap_or(&literal), addr.port());
    assert!(verdict.is_err() || asked.is_ok(), "{host:?} {addr}: {asked:?}");
    verdict
}

#[test]
fn both_policies_must_match() {
    let open = ["0.0.0.0/0", "10.0.0.0/8"];
    assert_eq!(check(&open, "", None, "9.9.9.1:80"), Ok(()));
    assert_eq!(check(&open, "allow=9.9.9.0/24:80", None, "9.9.9.1:80"), Ok(()));
    assert_eq!(check(&open, "allow=9.9.9.0/24:80", None, "9.9.9.1:81"), Err(Reason::NotForClient));
    assert_eq!(check(&open, "allow=9.9.9.0/24", None, "10.1.1.1:80"), Err(Reason::NotForClient));
    // The gateway opened 10.0.0.0/8; a wide rule of the client's narrows nothing.
    assert_eq!(check(&open, "allow=0.0.0.0/0", None, "10.1.1.1:80"), Ok(()));
    // And a client's rule opens nothing.
    assert_eq!(check(&["9.9.9.0/24"], "allow=10.0.0.0/8", None, "10.1.1.1:80"), Err(Reason::NotAllowed));
    let by_name = "allow=*.example.com:443";
    assert_eq!(check(&open, by_name, Some("db.example.com"), "9.9.9.1:443"), Ok(()));
    assert_eq!(check(&open, by_name, Some("db.example.org"), "9.9.9.1:443"), Err(Reason::NotForClient));
    assert_eq!(check(&open, by_name, None, "9.9.9.1:443"), Err(Reason::NotForClient));
    // NAT64: judged as the IPv4 address inside.
    let nat64 = "[64:ff9b::909:901]:80";
    assert_eq!(check(&open, "allow=9.9.9.0/24", None, nat64), Ok(()));
    assert_eq!(check(&open, "allow=9.9.8.0/24", None, nat64), Err(Reason::NotForClient));
}

#[test]
fn a_name_that_cannot_be_allowed_is_not_looked_up() {
    let gateway = Policy::parse(&["*".into(), "0.0.0.0/0".into()], &[]).unwrap();
    let asked = |client: &str, host: &str| policy(client).check_name_possible(&gateway, host, 443).is_ok();
    assert!(asked("", "example.org"));
    assert!(asked("allow=example.org", "example.org"));
    assert!(!asked("allow=example.com", "example.org"));
    assert!(!asked("allow=example.org:80", "example.org"));
    assert!(asked("allow=198.51.100.0/24", "example.org"), "it may resolve into the network");
    assert!(!asked("allow=198.51.100.0/24", "198.51.101.1"));
}

#[test]
fn listeners() {
    let may = |rules: &str, addr: &str| policy(rules).may_listen(addr.parse().unwrap());
    for (rules, addr, wanted) in [
        ("", "127.0.0.1:8080", false),
        ("listen=8080", "127.0.0.1:8080", true),
        ("listen=8080", "[::1]:8080", true),
        ("listen=8080", "127.0.0.1:8081", false),
        ("listen=8080", "198.18.0.1:8080", false),
        ("listen=8080", "0.0.0.0:8080", false),
        ("listen=*:8080", "0.0.0.0:8080", true),
        ("listen=*:8080", "198.18.0.1:8080", true),
        ("listen=198.18.0.1:8080", "198.18.0.1:8080", true),
        ("listen=198.18.0.1:8080", "[::ffff:198.18.0.1]:8080", true),
        ("listen=198.18.0.1:8080", "0.0.0.0:8080", false),
        ("listen=[::]:8080", "[::]:8080", true),
        ("listen=8080", "127.0.0.1:0", false),
        ("listen=1-65535", "127.0.0.1:0", true),
        ("listen=22 listen=8000-8999", "127.0.0.1:8500", true),
    ] {
        assert_eq!(may(rules, addr), wanted, "{rules:?} {addr}");
    }
}

#[test]
fn announced_prefixes() {
    let may = |rules: &str, prefix: &str| policy(rules).may_announce(&parse_net(prefix).unwrap());
    assert!(!may("", "10.1.0.0/16"));
    assert!(may("routes=10.0.0.0/8", "10.1.0.0/16"));
    assert!(may("routes=10.1.0.0/16", "10.1.0.0/16"));
    assert!(!may("routes=10.1.0.0/16", "10.0.0.0/8"));
    assert!(may("routes=10.1.0.0/16 routes=2001:db8::/32", "2001:db8:7::/48"));
}
