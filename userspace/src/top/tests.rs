//! Goal: what is on the screen and in the plain text, character by character, at sizes from a wall to a sliver; the rates
//! are those of two samples. Method: a made-up gateway, ratatui's test backend, and the files in `snapshots/`;
//! `BEAM_WRITE_SNAPSHOTS=1` writes them anew, and a reviewer looks at what has changed.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not their helpers")]

use super::{
    draw::{Looks, View, draw},
    model::Model,
    plain,
    sample::Sample,
    tables::Pane,
    ui::Ui,
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};
use serde_json::{Value, json};
use std::{collections::VecDeque, path::PathBuf, time::Duration};

const LOOKS: Looks = Looks { colour: true, unicode: true };

/// A worker that has seen `n` of everything.
fn worker(id: u8, queue: u32, n: u64) -> Value {
    json!({
        "id": id, "cpu": id + 2, "interface": "eth0", "queues": [queue], "xdp_mode": "native-zerocopy",
        "xdp_why": [], "connections": 2 + u64::from(id), "flows": 10 * (1 + u64::from(id)),
        "xsk_rx_frames": 1000 * n, "xsk_rx_bytes": 100_000 * n, "xsk_tx_frames": 90_000 * n,
        "xsk_tx_bytes": 125_000_000 * n, "kernel_rx_packets": n, "kernel_rx_bytes": 100 * n,
        "kernel_tx_packets": 0, "kernel_tx_bytes": 0, "handed_out": 0, "handed_in": 0,
        "rx_delivered": 1001 * n, "rx_bursts": 100 * n, "drops": 7 * n * u64::from(id),
        "loops": 500 * n, "sleeps": 50 * n,
    })
}

/// The gateway after `n` seconds: every counter has grown by the same each second.
fn sample(n: u64) -> Sample {
    let tunnel = |worker: u64, number: u64| {
        let client = ["alice", "bob", "carol"][(number % 3) as usize];
        json!({
            "tunnel": format!("{worker}/{number}/0"), "client": client,
            "remote": format!("198.18.0.{number}:40000"), "worker": worker, "flows": number,
            "rtt_ms": 0.25 * (number + 1) as f64, "mtu": 1452, "datagram_mtu": 1413,
            "sent_packets": 1000 * n, "lost_packets": 10 * n * (number % 2),
            "tx_bytes": 1_000_000 * number * n, "rx_bytes": 10_000 * n, "age_s": 100 + n,
        })
    };
    let client = |name: &str, by: u64| {
        json!({
            "client": name, "connections": 2, "flows": 3 * by, "sent_bytes": 1000 * by * n,
            "received_bytes": 2_000_000 * by * n, "refused_limit": by / 3, "rate_waits": 4 * by * n,
            "rate_dropped": 0,
        })
    };
    // Of a hundred turns a second, 98 in 10 us, the others in 150 us.
    let lag = |worker: u8| {
        let at_most: Vec<u64> = (0..32).map(|at| if at < 7 { 98 * n } else { 100 * n }).collect();
        json!({ "worker": worker, "at_most": at_most })
    };
    let tunnels: Vec<Value> = (0..6).map(|number| tunnel(number % 2, number)).collect();
    serde_json::from_value(json!({
        "at_us": 1_000_000 * n,
        "status": {
            "schema": "beam.status.v1", "version": "1.2.3", "role": "gateway", "ready": true,
            "why_not_ready": null, "draining": false, "uptime_s": 3600 * 3 + n, "address": "[::]:443",
            "connections": 6, "flows": 30, "flows_opened": 12_345,
            "rates": { "over_ms": 0, "rx_bits_per_s": 0, "tx_bits_per_s": 0, "rx_packets_per_s": 0,
                       "tx_packets_per_s": 0 },
            "workers": [worker(0, 0, n), worker(1, 1, n)],
            "interfaces": [{ "name": "eth0", "alert": "eth0 has 4 queues, 2 have a socket" }],
            "alerts": { "rules": 9, "firing": [{
                "alert": "drops > 5/s for 2s", "quantity": "drops", "value": 7.0, "threshold": 5.0, "unit": "/s",
                "since": "2026-11-26 08:00:00 UTC", "for_s": 12,
            }] },
            "xsk_rx_frames": 0, "xsk_tx_frames": 0, "kernel_udp_packets": 0,
            "drops": { "drop_cid_unknown": 7 * n, "rx_bad_checksum": 3 },
            "counters": {},
            "conservation": { "frames_in": 0, "delivered": 0, "dropped": 0, "in_flight": 0, "holds": true },
            "protection": crate::protection::ProtectionStatus::default(),
            "privileges": crate::privileges::status(),
        },
        "clients": [client("alice", 1), client("bob", 2), client("carol", 3)],
        "clients_total": 3,
        "tunnels": tunnels,
        "lags": [lag(0), lag(1)],
    }))
    .unwrap()
}

fn model() -> Model {
    Model::new(Some(&sample(10)), &sample(12), None)
}

/// What a terminal of that size shows.
fn screen(width: u16, height: u16, view: &View<'_>, ui: &mut Ui) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(frame, view, ui);
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width).map(|line| {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

fn ui() -> Ui {
    Ui::new(Duration::from_secs(2))
}

fn view<'a>(model: &'a Model, history: &'a VecDeque<(u64, u64)>, looks: Looks) -> View<'a> {
    View { model: Some(model), gone: None, history, looks }
}

fn shown(width: u16, height: u16, keys: &[KeyCode]) -> String {
    let (model, history) = (model(), (0..50).map(|n| (n * 1_000_000, (50 - n) * 3_000_000)).collect());
    let (view, mut ui) = (view(&model, &history, LOOKS), ui());
    // What the keys have to do with depends on what was shown.
    screen(width, height, &view, &mut ui);
    for &key in keys {
        ui.on_key(KeyEvent::new(key, KeyModifiers::NONE), 3);
        screen(width, height, &view, &mut ui);
    }
    text(&screen(width, height, &view, &mut ui))
}

#[track_caller]
fn matches_file(name: &str, seen: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src/top/snapshots", name].iter().collect();
    if std::env::var_os("BEAM_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&path, seen).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(seen == wanted, "{name} is shown as\n{seen}\nand not as\n{wanted}");
}

#[test]
fn every_size_shows_what_fits() {
    for (width, height) in [(200, 60), (120, 40), (80, 24), (60, 14), (40, 8), (20, 4)] {
        matches_file(&format!("{width}x{height}.txt"), &shown(width, height, &[]));
    }
}

#[test]
fn keys_change_what_is_shown() {
    let scrolled = [KeyCode::Char('t'), KeyCode::Char('s'), KeyCode::Char('r'), KeyCode::Down];
    matches_file("80x24-tunnels.txt", &shown(80, 24, &scrolled));
    matches_file("60x14-clients.txt", &shown(60, 14, &[KeyCode::Char('c')]));
    matches_file("80x24-help.txt", &shown(80, 24, &[KeyCode::Char('h')]));
}

#[test]
fn a_client_and_a_daemon_that_is_gone() {
    let mut after = sample(12);
    after.status.role = "client".into();
    (after.status.ready, after.status.why_not_ready) =
        (false, Some("handshake with 198.18.0.1:443\u{1b}[2J".into()));
    after.clients.clear();
    let model = Model::new(Some(&sample(10)), &after, None);
    let history = VecDeque::new();
    let seen = text(&screen(100, 20, &view(&model, &history, LOOKS), &mut ui()));
    assert!(!seen.contains('\u{1b}'), "a name from elsewhere moves the cursor");
    matches_file("100x20-client.txt", &seen);
    let gone = Some(("no daemon at /run/beam/beam.sock", Duration::from_secs(65)));
    let mut paused = ui();
    paused.paused = true;
    let seen = text(&screen(100, 20, &View { gone, ..view(&model, &history, LOOKS) }, &mut paused));
    matches_file("100x20-gone.txt", &seen);
}

// Nothing panics, whatever the size, the focus and the keys.
#[test]
fn no_size_is_too_small() {
    let (model, history) = (model(), VecDeque::from([(1, 2)]));
    let keys = ['w', 'c', 't', 'd', 'h', 'x', 's', 'r', 'p'].map(KeyCode::Char);
    let keys = keys.into_iter().chain([KeyCode::End, KeyCode::PageDown, KeyCode::Home, KeyCode::Tab]);
    for key in keys {
        for size in 0..48 {
            let mut ui = ui();
            ui.on_key(KeyEvent::new(key, KeyModifiers::NONE), 3);
            screen(2 * size, size, &view(&model, &history, LOOKS), &mut ui);
            screen(3, size, &view(&model, &history, LOOKS), &mut ui);
            screen(130, size, &View { model: None, ..view(&model, &history, LOOKS) }, &mut ui);
        }
    }
}

#[test]
fn colour_and_block_characters_are_only_used_where_they_are_had() {
    let (model, history) = (model(), (0..50).map(|n| (n, n)).collect());
    for looks in [LOOKS, Looks { colour: false, unicode: false }] {
        for key in ['w', 'h'] {
            let mut ui = ui();
            ui.on_key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE), 3);
            let buffer = screen(120, 50, &view(&model, &history, looks), &mut ui);
            let is_coloured =
                buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
            assert_eq!(is_coloured, looks.colour);
            assert_eq!(text(&buffer).is_ascii(), !looks.unicode);
            let stands_out = |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
            assert_eq!(buffer.content.iter().any(stands_out), !looks.colour, "the focus is seen either way");
        }
    }
}

#[test]
fn plain_text_has_every_column_and_no_escape() {
    let text = plain::block(&model());
    assert!(text.is_ascii() && !text.contains('\u{1b}'));
    for column in Pane::ALL.into_iter().flat_map(Pane::columns) {
        assert!(text.contains(column.title), "{}", column.title);
    }
    matches_file("plain.txt", &text);
}

#[test]
fn rates_are_of_two_samples() {
    let model = model();
    assert_eq!(model.over_s, Some(2.0));
    let first = &model.workers[0];
    assert_eq!((first.rates.rx_packets, first.rates.tx_packets), (Some(1001.0), Some(90_000.0)));
    assert_eq!(first.rates.tx_bits, Some(1e9));
    assert_eq!((first.batch, first.sleeps_per_s), (Some(10.01), Some(50.0)));
    assert_eq!(first.lag_us, Some(150.0));
    assert_eq!([0, 1].map(|index| model.workers[index].drops_per_s), [Some(0.0), Some(7.0)]);
    assert!((first.xsk_percent.unwrap() - 99.9989).abs() < 1e-4);
    assert_eq!(model.total.rx_packets, Some(2002.0));
    assert_eq!(model.drops_per_s, Some(7.0));
    let clients = model.clients.as_ref().unwrap();
    assert_eq!((clients[1].sent_bits, clients[1].received_bits), (Some(16_000.0), Some(32e6)));
    assert_eq!(clients[1].rtt_ms, Some(1.25), "the worse of its two tunnels");
    assert_eq!(clients[1].loss_percent, Some(1.0));
    assert_eq!(model.tunnels[5].tx_bits, Some(40e6));
    assert_eq!((model.drops[0].reason.as_str(), model.drops[0].per_s), ("drop_cid_unknown", Some(7.0)));
}

#[test]
fn one_sample_has_no_rates_and_a_restart_begins_anew() {
    let first = Model::new(None, &sample(12), None);
    let restarted = Model::new(Some(&sample(12)), &sample(3), None);
    for model in [first, restarted] {
        assert_eq!((model.over_s, model.total.rx_bits, model.drops_per_s), (None, None, None));
        assert_eq!((model.workers[0].xsk_percent, model.workers[0].batch), (None, None));
        assert!(model.tunnels.iter().all(|tunnel| tunnel.loss_percent.is_none()));
    }
}

#[test]
fn an_interface_shows_its_own_workers() {
    let mut after = sample(12);
    after.status.workers[1].interface = Some("eth1".into());
    let model = Model::new(Some(&sample(10)), &after, Some("eth1"));
    assert_eq!(model.workers.iter().map(|worker| worker.id).collect::<Vec<_>>(), [1]);
    assert_eq!(model.total.tx_packets, Some(90_000.0));
}
