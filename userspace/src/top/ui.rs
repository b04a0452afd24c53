//! What the keys have made of the screen: focus, order, place, pause. Pure: keys in, what the caller has to do out.

use super::tables::Pane;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::Duration;

/// Intervals that + and - step through.
const INTERVALS_MS: [u64; 10] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000];

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Ui {
    pub(super) focus: Pane,
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) help: bool,
    panes: [PaneState; 4],
    /// A client has no table of clients.
    pub(super) has_clients: bool,
}

/// One table's order, and the first row that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaneState {
    pub(super) column: usize,
    pub(super) reverse: bool,
    pub(super) first_row: usize,
}

/// What a key asks of whoever runs the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Draw again.
    Draw,
    /// The interval is another.
    Interval,
    /// Draw from scratch: something else has written on the terminal.
    Redraw,
    Suspend,
    Quit,
    Nothing,
}

impl Ui {
    pub(super) fn new(interval: Duration) -> Self {
        let state = |pane: Pane| {
            let (column, reverse) = pane.first_order();
            PaneState { column, reverse, first_row: 0 }
        };
        Self {
            focus: Pane::Workers,
            interval,
            paused: false,
            help: false,
            panes: Pane::ALL.map(state),
            has_clients: true,
        }
    }

    pub(super) fn pane(&self, pane: Pane) -> PaneState {
        self.panes[pane as usize]
    }

    fn focused(&mut self) -> &mut PaneState {
        &mut self.panes[self.focus as usize]
    }

    /// Keeps the first row of a table within it: rows go, and the window grows.
    pub(super) fn clamp(&mut self, pane: Pane, row_count: usize, shown_count: usize) {
        let state = &mut self.panes[pane as usize];
        state.first_row = state.first_row.min(row_count.saturating_sub(shown_count));
    }

    /// One key; `page` is how many rows the focused table shows.
    pub(super) fn on_key(&mut self, key: KeyEvent, page: usize) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                KeyCode::Char('l') => Action::Redraw,
                _ => Action::Nothing,
            };
        }
        if self.help {
            // Any key leaves it; q means it.
            self.help = false;
            return if key.code == KeyCode::Char('q') { Action::Quit } else { Action::Draw };
        }
        let page = page.max(1);
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('h' | '?') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('+') => return self.step_interval(1),
            KeyCode::Char('-') => return self.step_interval(-1),
            KeyCode::Char('w') => self.focus = Pane::Workers,
            KeyCode::Char('c') if self.has_clients => self.focus = Pane::Clients,
            KeyCode::Char('t') => self.focus = Pane::Tunnels,
            KeyCode::Char('d') => self.focus = Pane::Drops,
            KeyCode::Tab => self.next_focus(1),
            KeyCode::BackTab => self.next_focus(3),
            KeyCode::Char('s') | KeyCode::Right => self.next_column(1),
            KeyCode::Char('S') | KeyCode::Left => self.next_column(-1),
            KeyCode::Char('r') => self.focused().reverse ^= true,
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::PageUp => self.scroll(-(page as isize)),
            KeyCode::PageDown => self.scroll(page as isize),
            KeyCode::Home | KeyCode::Char('g') => self.focused().first_row = 0,
            KeyCode::End | KeyCode::Char('G') => self.focused().first_row = usize::MAX,
            _ => return Action::Nothing,
        }
        Action::Draw
    }

    fn scroll(&mut self, rows: isize) {
        let state = self.focused();
        state.first_row = state.first_row.saturating_add_signed(rows);
    }

    fn next_column(&mut self, by: isize) {
        let count = self.focus.columns().len();
        let state = self.focused();
        state.column = (state.column + count).wrapping_add_signed(by) % count;
        state.reverse = false;
    }

    fn next_focus(&mut self, by: usize) {
        self.focus = Pane::ALL[(self.focus as usize + by) % 4];
        if self.focus == Pane::Clients && !self.has_clients {
            self.next_focus(by);
        }
    }

    fn step_interval(&mut self, by: isize) -> Action {
        let now = self.interval.as_millis() as u64;
        let next = match by {
            1.. => INTERVALS_MS.iter().find(|&&ms| ms > now),
            _ => INTERVALS_MS.iter().rev().find(|&&ms| ms < now),
        };
        let Some(&next) = next else { return Action::Nothing };
        self.interval = Duration::from_millis(next);
        Action::Interval
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each key does what the help says, and no row is scrolled out of reach.
    use super::*;

    fn ui() -> Ui {
        Ui::new(Duration::from_secs(1))
    }

    fn press(ui: &mut Ui, code: KeyCode) -> Action {
        ui.on_key(KeyEvent::new(code, KeyModifiers::NONE), 10)
    }

    #[test]
    fn keys_of_the_whole() {
        let mut ui = ui();
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        assert_eq!(ui.on_key(control('c'), 1), Action::Quit);
        assert_eq!(ui.on_key(control('z'), 1), Action::Suspend);
        assert_eq!(ui.on_key(control('l'), 1), Action::Redraw);
        assert_eq!(press(&mut ui, KeyCode::Char('x')), Action::Nothing);
        assert_eq!((press(&mut ui, KeyCode::Char('h')), ui.help), (Action::Draw, true));
        assert_eq!((press(&mut ui, KeyCode::Char('w')), ui.help), (Action::Draw, false));
        assert_eq!((press(&mut ui, KeyCode::Char('p')), ui.paused), (Action::Draw, true));
        assert_eq!(press(&mut ui, KeyCode::Char('q')), Action::Quit);
    }

    #[test]
    fn intervals_step_between_their_ends() {
        let mut ui = ui();
        assert_eq!((press(&mut ui, KeyCode::Char('+')), ui.interval.as_secs()), (Action::Interval, 2));
        let slower = (0..20).filter(|_| press(&mut ui, KeyCode::Char('+')) == Action::Interval).count();
        assert_eq!((slower, ui.interval.as_secs()), (5, 300));
        let faster = (0..20).filter(|_| press(&mut ui, KeyCode::Char('-')) == Action::Interval).count();
        assert_eq!((faster, ui.interval.as_millis()), (9, 100));
    }

    #[test]
    fn focus_goes_round_and_skips_what_isnt_there() {
        let mut ui = ui();
        let round = |ui: &mut Ui, code| (0..4).map(|_| (press(ui, code), ui.focus).1).collect::<Vec<_>>();
        use Pane::{Clients, Drops, Tunnels, Workers};
        assert_eq!(round(&mut ui, KeyCode::Tab), [Clients, Tunnels, Drops, Workers]);
        assert_eq!(round(&mut ui, KeyCode::BackTab), [Drops, Tunnels, Clients, Workers]);
        ui.has_clients = false;
        assert_eq!(round(&mut ui, KeyCode::Tab), [Tunnels, Drops, Workers, Tunnels]);
        assert_eq!(press(&mut ui, KeyCode::Char('c')), Action::Nothing);
    }

    #[test]
    fn scrolling_stays_within_the_rows() {
        let mut ui = ui();
        press(&mut ui, KeyCode::PageDown);
        press(&mut ui, KeyCode::Down);
        ui.clamp(Pane::Workers, 100, 10);
        assert_eq!(ui.pane(Pane::Workers).first_row, 11);
        press(&mut ui, KeyCode::End);
        ui.clamp(Pane::Workers, 100, 10);
        assert_eq!(ui.pane(Pane::Workers).first_row, 90);
        ui.clamp(Pane::Workers, 5, 10);
        assert_eq!(ui.pane(Pane::Workers).first_row, 0);
        press(&mut ui, KeyCode::Up);
        assert_eq!(ui.pane(Pane::Workers).first_row, 0);
    }

    #[test]
    fn columns_go_round() {
        let mut ui = ui();
        press(&mut ui, KeyCode::Char('S'));
        let last = Pane::Workers.columns().len() - 1;
        assert_eq!(ui.pane(Pane::Workers), PaneState { column: last, reverse: false, first_row: 0 });
        press(&mut ui, KeyCode::Char('s'));
        press(&mut ui, KeyCode::Char('r'));
        assert_eq!(ui.pane(Pane::Workers), PaneState { column: 0, reverse: true, first_row: 0 });
    }
}
