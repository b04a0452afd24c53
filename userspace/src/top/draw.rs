//! The screen, as a function of what is known: [`View`] in, cells out. Knows no terminal and no clock.
//!
//! ```text
//!  title     beam 0.1.0 gateway on :443   ready   up 3h12m                                      every 1s
//!  totals    rx … tx … drops … tunnels … flows …
//!  alerts    at most three
//!  history   rx and tx, where there is room
//!  tables    workers, clients, tunnels, drops: what each needs, the focused one the rest
//!  keys
//! ```

use super::{
    figures::{duration, si, with_unit},
    model::Model,
    table::{Laid, Table, Tone},
    tables::Pane,
    ui::Ui,
};
use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Clear, RenderDirection, Sparkline},
};
use std::{collections::VecDeque, time::Duration};

/// Alerts shown; the others are in `beam status`.
const ALERTS_MAX: usize = 3;
/// From this height on a line of keys is affordable, and from these sizes a history.
const KEYS_FROM: u16 = 10;
const HISTORY_FROM: (u16, u16) = (100, 34);
/// Lines of one history.
const HISTORY_LINES: u16 = 3;
/// Looks that the history goes back.
pub(super) const HISTORY_MAX: usize = 400;
/// A table that is shown has its titles and a row at least.
const TABLE_LINES_MIN: usize = 2;

/// What a terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    pub(super) colour: bool,
    /// Block characters are to be had.
    pub(super) unicode: bool,
}

/// Everything that is seen.
pub(super) struct View<'a> {
    /// `None` before the first look.
    pub(super) model: Option<&'a Model>,
    /// Why the daemon doesn't answer, and since when, if it doesn't.
    pub(super) gone: Option<(&'a str, Duration)>,
    /// Bits received and sent, latest first.
    pub(super) history: &'a VecDeque<(u64, u64)>,
    pub(super) looks: Looks,
}

/// Draws it all. Says how many rows the focused table shows; rows that have gone are scrolled back from.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View<'_>, ui: &mut Ui) -> usize {
    let mut rest = frame.area();
    let looks = view.looks;
    title(frame, &mut rest, view, ui);
    let Some(model) = view.model else { return 0 };
    ui.has_clients = model.clients.is_some();
    let width = rest.width;
    line(frame, &mut rest, totals(model, looks, width));
    for alert in model.alerts.iter().take(ALERTS_MAX) {
        line(frame, &mut rest, Line::styled(format!("ALERT: {alert}"), looks.tone(Tone::Bad)));
    }
    if rest.height >= KEYS_FROM {
        let keys = Rect { y: rest.bottom() - 1, height: 1, ..rest };
        rest.height -= 1;
        frame.render_widget(key_line(looks, keys.width), keys);
    }
    if rest.width >= HISTORY_FROM.0 && rest.height >= HISTORY_FROM.1 && looks.unicode {
        history(frame, &mut rest, view);
    }
    let page = tables(frame, rest, model, ui, looks);
    if ui.help {
        help(frame, looks);
    }
    page
}

impl Looks {
    fn tone(self, tone: Tone) -> Style {
        let plain = Style::new();
        match (tone, self.colour) {
            (Tone::Plain, _) => plain,
            (Tone::Good, true) => plain.fg(Color::Green),
            (Tone::Warn, true) => plain.fg(Color::Yellow),
            (Tone::Bad, true) => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            (Tone::Bad | Tone::Warn, false) => plain.add_modifier(Modifier::BOLD),
            (Tone::Dim, _) => plain.add_modifier(Modifier::DIM),
            (Tone::Good, false) => plain,
        }
    }

    /// Titles of a table.
    fn heading(self, focused: bool) -> Style {
        match (focused, self.colour) {
            (true, true) => Style::new().fg(Color::Black).bg(Color::Cyan),
            (true, false) => Style::new().add_modifier(Modifier::REVERSED),
            (false, true) => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
            (false, false) => Style::new().add_modifier(Modifier::UNDERLINED),
        }
    }

    /// What stands out in a line of text.
    fn strong(self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if self.colour { bold.fg(Color::Cyan) } else { bold }
    }
}

/// Takes the top line of what is left.
fn line(frame: &mut Frame<'_>, rest: &mut Rect, text: Line<'_>) {
    if rest.height > 0 {
        frame.render_widget(text, Rect { height: 1, ..*rest });
        (rest.y, rest.height) = (rest.y + 1, rest.height - 1);
    }
}

fn title(frame: &mut Frame<'_>, rest: &mut Rect, view: &View<'_>, ui: &Ui) {
    let looks = view.looks;
    let mut spans = vec![Span::styled("beam", looks.strong())];
    if let Some(model) = view.model {
        let preposition = if model.role != "client" { "on" } else { "to" };
        spans.push(format!(" {} {} {preposition} {}   ", model.version, model.role, model.address).into());
        let tone = match (model.ready, model.draining) {
            (_, true) => Tone::Warn,
            (true, _) => Tone::Good,
            (false, _) => Tone::Bad,
        };
        if view.gone.is_none() {
            spans.push(Span::styled(model.state.clone(), looks.tone(tone)));
            spans.push(format!("   up {}", duration(model.uptime_s as f64)).into());
        }
    }
    if let Some((why, since)) = view.gone {
        let since = duration(since.as_secs_f64());
        spans.push(Span::styled(format!("no answer for {since}: {why}"), looks.tone(Tone::Bad)));
    } else if view.model.is_none() {
        spans.push(" looking...".into());
    }
    let (area, text) = (Rect { height: rest.height.min(1), ..*rest }, Line::from(spans));
    let pace = match ui.paused {
        true => "PAUSED".to_owned(),
        false => format!("every {} s", ui.interval.as_secs_f64()),
    };
    let left_width = text.width();
    line(frame, rest, text);
    // Where there is room beside the rest.
    if left_width + 2 + pace.len() <= usize::from(area.width) {
        let style = looks.tone(if ui.paused { Tone::Warn } else { Tone::Dim });
        frame.render_widget(Line::styled(pace, style).right_aligned(), area);
    }
}

/// What all do together, as far as it fits: figures stand out from what they are of.
fn totals(model: &Model, looks: Looks, width: u16) -> Line<'static> {
    let bits = |value: Option<f64>| value.map_or("-".to_owned(), |value| with_unit(value, "bit/s"));
    let each =
        |value: Option<f64>, unit| value.map_or("-".to_owned(), |value| format!("{}{unit}", si(value)));
    let (rates, bold) = (&model.total, Style::new().add_modifier(Modifier::BOLD));
    let drops = if model.drops_per_s > Some(0.0) { looks.tone(Tone::Bad) } else { bold };
    let parts = [
        ("rx ", bits(rates.rx_bits), bold),
        ("", each(rates.rx_packets, " pkt/s"), Style::new()),
        ("  tx ", bits(rates.tx_bits), bold),
        ("", each(rates.tx_packets, " pkt/s"), Style::new()),
        ("  drops ", each(model.drops_per_s, "/s"), drops),
        ("  tunnels ", model.connections.to_string(), bold),
        ("  flows ", model.flows.to_string(), bold),
        ("opened ", model.flows_opened.to_string(), Style::new()),
    ];
    let mut used = 0;
    let fits = |(name, text, _): &(&str, String, Style)| {
        used += name.len() + text.len() + 1;
        used <= usize::from(width) + 1
    };
    let spans = parts.into_iter().take_while(fits).flat_map(|(name, text, style)| {
        [Span::styled(name, looks.tone(Tone::Dim)), Span::styled(text, style), " ".into()]
    });
    Line::from_iter(spans)
}

/// The keys, as far as they fit.
fn key_line(looks: Looks, width: u16) -> Line<'static> {
    let keys = [
        ("q", "quit"),
        ("h", "help"),
        ("w c t d", "table"),
        ("s r", "sort"),
        ("p", "pause"),
        ("+ -", "interval"),
        ("arrows", "scroll"),
    ];
    let mut used = 0;
    let fits = |&(key, does): &(&str, &str)| {
        used += key.len() + does.len() + 4;
        used <= usize::from(width) + 3
    };
    let spans = keys.into_iter().take_while(fits).flat_map(|(key, does)| {
        [Span::styled(key, looks.strong()), Span::styled(format!(" {does}   "), looks.tone(Tone::Dim))]
    });
    Line::from_iter(spans)
}

fn history(frame: &mut Frame<'_>, rest: &mut Rect, view: &View<'_>) {
    let looks = view.looks;
    rest.y += 1;
    rest.height -= 1;
    let half = rest.width.saturating_sub(2) / 2;
    let (rx, tx): (Vec<u64>, Vec<u64>) = view.history.iter().copied().unzip();
    let sides = [("rx", rx, Color::Green), ("tx", tx, Color::Cyan)];
    for (index, (name, data, colour)) in sides.into_iter().enumerate() {
        let x = rest.x + index as u16 * (half + 2);
        let shown = &data[..data.len().min(usize::from(half))];
        let peak = shown.iter().copied().max().unwrap_or(0);
        let label = format!("{name}, at most {}", with_unit(peak as f64, "bit/s"));
        let (top, below) = (rest.y, rest.y + 1);
        frame.render_widget(Line::styled(label, looks.tone(Tone::Dim)), Rect::new(x, top, half, 1));
        let style = if looks.colour { Style::new().fg(colour) } else { Style::new() };
        let sparkline = Sparkline::default()
            .data(shown)
            .max(peak.max(1))
            .direction(RenderDirection::RightToLeft)
            .style(style);
        frame.render_widget(sparkline, Rect::new(x, below, half, HISTORY_LINES));
    }
    rest.y += HISTORY_LINES + 1;
    rest.height -= HISTORY_LINES + 1;
}

/// The tables, one above the other, with an empty line before each.
fn tables(frame: &mut Frame<'_>, area: Rect, model: &Model, ui: &mut Ui, looks: Looks) -> usize {
    let mut panes: Vec<(Pane, Table)> =
        Pane::ALL.into_iter().filter_map(|pane| Some((pane, pane.table(model)?))).collect();
    let height = usize::from(area.height);
    if height < panes.len() * (TABLE_LINES_MIN + 1) {
        panes.retain(|&(pane, _)| pane == ui.focus);
    }
    let wanted: Vec<usize> = panes.iter().map(|(_, table)| 2 + table.rows.len().max(1)).collect();
    let focus = panes.iter().position(|&(pane, _)| pane == ui.focus).unwrap_or(0);
    let heights = share(height, &wanted, focus);
    let mut y = area.y;
    let mut page = 0;
    for ((pane, mut table), lines) in panes.into_iter().zip(heights) {
        let state = ui.pane(pane);
        table.sort(state.column, state.reverse);
        let inside = Rect { y: y + 1, height: (lines as u16).saturating_sub(1), ..area };
        let row_count = usize::from(inside.height.saturating_sub(1));
        ui.clamp(pane, table.rows.len(), row_count);
        if pane == ui.focus {
            page = row_count;
        }
        draw_table(frame, inside.intersection(area), pane, &table, ui, looks);
        y += lines as u16;
    }
    page
}

/// Shares out `height` lines: each gets what it wants, as far as they go; where they are too few, each has the least, the
/// focused one then takes half of what is left, and the others the rest in turn.
fn share(height: usize, wanted: &[usize], focus: usize) -> Vec<usize> {
    let mut lines: Vec<usize> = wanted.iter().map(|&want| want.min(TABLE_LINES_MIN + 1)).collect();
    let mut left = height.saturating_sub(lines.iter().sum());
    if let (Some(line), Some(&want)) = (lines.get_mut(focus), wanted.get(focus)) {
        let more = (want - *line).min(left.div_ceil(2));
        *line += more;
        left -= more;
    }
    while left > 0 {
        let before = left;
        for (line, &want) in lines.iter_mut().zip(wanted) {
            if *line < want && left > 0 {
                *line += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    lines
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, pane: Pane, table: &Table, ui: &Ui, looks: Looks) {
    let (state, focused) = (ui.pane(pane), pane == ui.focus);
    let laid = table.layout(Some(area.width.into()));
    let mut rest = area;
    let heading_area = Rect { height: rest.height.min(1), ..area };
    let heading = heading(table, &laid, state.column, focused, looks);
    let used = heading.width();
    line(frame, &mut rest, heading.style(looks.heading(focused)));
    let (first, shown) = (state.first_row, usize::from(rest.height));
    let total = table.rows.len() + table.more;
    if total > shown && shown > 0 {
        let place = format!(" {}-{} of {total}", first + 1, (first + shown).min(table.rows.len()));
        if used + place.len() <= usize::from(area.width) {
            let text = Line::styled(place, looks.heading(focused)).right_aligned();
            frame.render_widget(text, heading_area);
        }
    }
    if table.rows.is_empty() {
        line(frame, &mut rest, Line::styled(table.nothing, looks.tone(Tone::Dim)));
    }
    for row in table.rows.iter().skip(first).take(shown) {
        let mut spans = Vec::new();
        for &one in &laid {
            let cell = &row[one.index];
            spans.push(Span::styled(table.padded(one, &cell.text), looks.tone(cell.tone)));
            spans.push("  ".into());
        }
        line(frame, &mut rest, Line::from(spans));
    }
}

/// The titles; the one that rows are sorted by stands out.
fn heading(table: &Table, laid: &[Laid], sorted_by: usize, focused: bool, looks: Looks) -> Line<'static> {
    let spans = laid.iter().flat_map(|&one| {
        let title = table.padded(one, table.columns[one.index].title);
        let style = looks.heading(focused);
        let style = if one.index == sorted_by && focused {
            style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            style
        };
        [Span::styled(title, style), Span::raw("  ")]
    });
    Line::from_iter(spans)
}

const HELP_KEYS_WIDTH: usize = 20;

const ASCII_BORDER: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

const HELP: &[(&str, &str)] = &[
    ("w c t d, Tab", "which table: workers, clients, tunnels, drops"),
    ("s S, left right", "sort it by the next or the previous column"),
    ("r", "the other way round"),
    ("up down, PgUp PgDn", "scroll it; Home and End, too"),
    ("+ -", "look less or more often"),
    ("p, space", "pause; what happens meanwhile isn't shown"),
    ("Ctrl-L, Ctrl-Z", "draw afresh; suspend (fg resumes)"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("xsk %", "datagrams that AF_XDP carried; the kernel the others"),
    ("batch", "datagrams that one look at the ports brought"),
    ("lag ms", "99 of 100 turns of the worker's loop took at most that"),
    ("rtt, loss", "of QUIC; of a client, those of its worst tunnel"),
    ("sent, rcvd", "payload, as the client sees it"),
];

fn help(frame: &mut Frame<'_>, looks: Looks) {
    let screen = frame.area();
    let wide = HELP.iter().map(|(_, does)| HELP_KEYS_WIDTH + 4 + does.len()).max().unwrap_or(0) as u16;
    let (width, height) = (wide.min(screen.width), (HELP.len() as u16 + 2).min(screen.height));
    let area = Rect::new((screen.width - width) / 2, (screen.height - height) / 2, width, height);
    let lines = if looks.unicode { border::PLAIN } else { ASCII_BORDER };
    let block = Block::bordered().border_set(lines).border_style(looks.strong()).title(" beam top ");
    let mut rest = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    for (key, does) in HELP {
        let key = Span::styled(format!(" {key:<HELP_KEYS_WIDTH$}"), looks.strong());
        line(frame, &mut rest, Line::from_iter([key, (*does).into()]));
    }
}
