//! A lazy timer wheel: three levels of 256 slots, at 1 ms, 256 ms and 65.5 s a slot.
//!
//! ```text
//!  level 0: the next 256 ms, a slot a millisecond    (expire from here)
//!  level 1: the next 65.5 s, a slot 256 ms           (cascades into level 0)
//!  level 2: the next 4.6 h,  a slot 65.5 s           (cascades into level 1)
//! ```
//!
//! The caller names its timers by small integers (connection indexes) and keeps the true deadline.
//! It is lazy: [`Wheel::schedule`] does nothing when the deadline moved later, since a deadline that
//! moves with every packet would otherwise cost an unlink and a link a packet. When a timer fires
//! the caller asks what the deadline is by now, and schedules again if it lies ahead. So a timer
//! fires at or before its deadline as the wheel knows it, rounded *up* to the millisecond: never
//! early by rounding, which would spin, and at most 1 ms late.
//!
//! Links are indexes in one slab, 16 bytes a timer; insertion and removal are O(1); 32 words of
//! bitmap find the next slot. The engine owns it; it is a pure object, fed `now`.

use std::time::{Duration, Instant};

const SLOTS: usize = 256;
const LEVELS: usize = 3;
const NONE: u32 = u32::MAX;
/// Tick of a node that is in no slot.
const IDLE: u32 = u32::MAX;
/// Furthest that a timer is put ahead; a later deadline fires here, and is scheduled anew.
const HORIZON_TICKS: u32 = (255 << 16) - 1;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    prev: u32,
    /// When it fires, in ticks of 1 ms since the wheel's epoch; `IDLE` when in no slot.
    tick: u32,
    /// Level * 256 + slot; meaningless while idle.
    slot: u16,
}

/// Timers named by integers, at most one a name.
pub struct Wheel {
    /// Start of tick 0; set by the first `now`, moved so that ticks never wrap.
    epoch: Option<Instant>,
    /// Ticks below this have been expired.
    current: u32,
    nodes: Vec<Node>,
    heads: Box<[u32; SLOTS * LEVELS]>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
    len: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

impl Wheel {
    /// An empty wheel.
    pub fn new() -> Self {
        Self {
            epoch: None,
            current: 0,
            nodes: Vec::new(),
            heads: Box::new([NONE; SLOTS * LEVELS]),
            occupied: [[0; SLOTS / 64]; LEVELS],
            len: 0,
        }
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + size_of_val(&*self.heads)
    }

    /// Makes `timer` fire no later than `deadline`, rounded up to the millisecond.
    ///
    /// A timer that is already set to fire earlier is left alone.
    pub fn schedule(&mut self, now: Instant, timer: u32, deadline: Instant) {
        self.advance_epoch(now);
        let tick = self.tick_up(deadline);
        if self.nodes.len() <= timer as usize {
            let idle = Node { next: NONE, prev: NONE, tick: IDLE, slot: 0 };
            self.nodes.resize(timer as usize + 1, idle);
        }
        if self.nodes[timer as usize].tick <= tick {
            return;
        }
        self.cancel(timer);
        self.link(timer, tick);
        self.len += 1;
    }

    /// Gives back room for timers behind the last one that is set.
    pub fn tidy(&mut self) {
        while self.nodes.last().is_some_and(|node| node.tick == IDLE) {
            self.nodes.pop();
        }
        self.nodes.shrink_to(2 * self.nodes.len());
    }

    /// Forgets `timer`, if it is set.
    pub fn cancel(&mut self, timer: u32) {
        if self.nodes.get(timer as usize).is_some_and(|node| node.tick != IDLE) {
            self.unlink(timer);
            self.len -= 1;
        }
    }

    /// Appends to `due` every timer that should have fired by `now`; they are then no longer set.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        self.advance_epoch(now);
        let now_tick = self.tick_down(now);
        // Each round either takes a slot or jumps over empty ones to the next cascade, so a sleep of
        // hours costs as many rounds as there were occupied slots.
        while let Some((level, tick)) = self.next_slot().filter(|&(_, tick)| tick <= now_tick) {
            self.current = self.current.max(tick);
            let slot = slot_of(level, tick);
            while let Some(timer) = self.head(slot) {
                let fires = self.nodes[timer as usize].tick;
                self.unlink(timer);
                if fires <= now_tick {
                    self.len -= 1;
                    due.push(timer);
                } else {
                    self.link(timer, fires);
                }
            }
        }
        self.current = self.current.max(now_tick);
    }

    /// When `expire` should be called next: the next deadline if it lies within 256 ms, else no
    /// later than it (the start of the coarse slot that holds it).
    pub fn next_deadline(&self) -> Option<Instant> {
        let (_, tick) = self.next_slot()?;
        Some(self.epoch? + Duration::from_millis(tick.into()))
    }

    /// The occupied slot that comes up first: its level, and the first tick it stands for.
    fn next_slot(&self) -> Option<(usize, u32)> {
        // A coarse slot can start before a fine one fires, and is then cascaded first; on a tie the
        // coarse one too, since it may hold the same tick.
        (0..LEVELS).rev().filter_map(|level| self.next_in_level(level)).min_by_key(|&(_, tick)| tick)
    }

    fn next_in_level(&self, level: usize) -> Option<(usize, u32)> {
        let shift = 8 * level as u32;
        let position = self.current >> shift;
        let ahead = next_bit(&self.occupied[level], position as usize % SLOTS)?;
        Some((level, (position + ahead as u32) << shift))
    }

    fn link(&mut self, timer: u32, tick: u32) {
        let ahead = tick.saturating_sub(self.current);
        // By position and not by distance: within a level the slot that `current` is in has been
        // cascaded already, so a timer for the same coarse slot belongs to the level below.
        let level = match () {
            () if ahead < SLOTS as u32 => 0,
            () if (tick >> 8) - (self.current >> 8) < SLOTS as u32 => 1,
            () => 2,
        };
        let slot = slot_of(level, tick);
        let head = self.heads[slot];
        self.nodes[timer as usize] = Node { next: head, prev: NONE, tick, slot: slot as u16 };
        if head != NONE {
            self.nodes[head as usize].prev = timer;
        }
        self.heads[slot] = timer;
        self.occupied[level][slot % SLOTS / 64] |= 1 << (slot % 64);
    }

    fn unlink(&mut self, timer: u32) {
        let Node { next, prev, slot, .. } = self.nodes[timer as usize];
        let slot = usize::from(slot);
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        match prev {
            NONE => self.heads[slot] = next,
            prev => self.nodes[prev as usize].next = next,
        }
        if self.heads[slot] == NONE {
            self.occupied[slot / SLOTS][slot % SLOTS / 64] &= !(1 << (slot % 64));
        }
        self.nodes[timer as usize].tick = IDLE;
    }

    fn head(&self, slot: usize) -> Option<u32> {
        (self.heads[slot] != NONE).then_some(self.heads[slot])
    }

    /// Ticks are 32 bits: 49 days. Past half of that the epoch moves and every timer with it.
    fn advance_epoch(&mut self, now: Instant) {
        let epoch = *self.epoch.get_or_insert(now);
        if now.saturating_duration_since(epoch).as_millis() < 1 << 31 {
            return;
        }
        let mut set: Vec<(u32, u32)> = Vec::with_capacity(self.len);
        for timer in 0..self.nodes.len() as u32 {
            let tick = self.nodes[timer as usize].tick;
            if tick != IDLE {
                self.unlink(timer);
                set.push((timer, tick));
            }
        }
        let shift = self.current;
        self.epoch = Some(epoch + Duration::from_millis(shift.into()));
        self.current = 0;
        for (timer, tick) in set {
            self.link(timer, tick.saturating_sub(shift));
        }
    }

    /// Rounded up, not before the present tick, and within the horizon.
    fn tick_up(&self, at: Instant) -> u32 {
        let since = self.epoch.map_or(Duration::ZERO, |epoch| at.saturating_duration_since(epoch));
        let ticks = since.as_nanos().div_ceil(1_000_000);
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        ticks.clamp(self.current, self.current + HORIZON_TICKS)
    }

    fn tick_down(&self, at: Instant) -> u32 {
        let since = self.epoch.map_or(Duration::ZERO, |epoch| at.saturating_duration_since(epoch));
        u32::try_from(since.as_millis()).unwrap_or(u32::MAX)
    }
}

fn slot_of(level: usize, tick: u32) -> usize {
    level * SLOTS + (tick >> (8 * level)) as usize % SLOTS
}

/// Distance from `from` to the next set bit, going round.
fn next_bit(words: &[u64; SLOTS / 64], from: usize) -> Option<usize> {
    let (word, bit) = (from / 64, from % 64);
    let first = words[word] >> bit;
    if first != 0 {
        return Some(first.trailing_zeros() as usize);
    }
    // The last round looks at the starting word again, for the bits below `bit`.
    for step in 1..=words.len() {
        let value = words[(word + step) % words.len()];
        if value != 0 {
            return Some(step * 64 - bit + value.trailing_zeros() as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, HashMap};

    const MS: Duration = Duration::from_millis(1);

    /// The oracle: a heap with stale entries skipped, and the same lazy rule.
    #[derive(Default)]
    struct Heap {
        heap: BinaryHeap<Reverse<(u64, u32)>>,
        set: HashMap<u32, u64>,
    }

    impl Heap {
        fn schedule(&mut self, timer: u32, tick: u64) {
            if self.set.get(&timer).is_none_or(|&old| tick < old) {
                self.set.insert(timer, tick);
                self.heap.push(Reverse((tick, timer)));
            }
        }

        fn expire(&mut self, now: u64) -> Vec<u32> {
            let mut due = Vec::new();
            while let Some(&Reverse((tick, timer))) = self.heap.peek().filter(|e| e.0.0 <= now) {
                self.heap.pop();
                if self.set.get(&timer) == Some(&tick) {
                    self.set.remove(&timer);
                    due.push(timer);
                }
            }
            due
        }
    }

    // Goal: room goes back, and what is set stays. Method: three timers, cancelled from the last one on.
    #[test]
    fn room_behind_the_last_timer_is_given_back() {
        let (now, mut wheel, mut due) = (Instant::now(), Wheel::new(), Vec::new());
        let empty = wheel.memory_bytes();
        for timer in [3, 5000, 9000] {
            wheel.schedule(now, timer, now + Duration::from_millis(5));
        }
        wheel.cancel(9000);
        wheel.tidy();
        assert!(wheel.memory_bytes() - empty >= 5001 * size_of::<Node>());
        wheel.cancel(5000);
        wheel.tidy();
        assert!(wheel.memory_bytes() - empty <= 8 * size_of::<Node>());
        wheel.schedule(now, 9000, now + Duration::from_millis(5));
        wheel.expire(now + Duration::from_millis(10), &mut due);
        due.sort_unstable();
        assert_eq!(due, [3, 9000]);
        wheel.tidy();
        assert_eq!((wheel.memory_bytes(), wheel.len()), (empty, 0));
    }

    // Goal: the wheel fires the same timers at the same millisecond as a binary heap.
    // Method: 200 seeds of 2,000 random steps each (schedule near, far and past; cancel; sleep from
    // microseconds to an hour, or exactly until the announced deadline), comparing each expiry.
    #[test]
    fn agrees_with_a_binary_heap() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let base = Instant::now();
            let mut now = Duration::ZERO;
            let mut wheel = Wheel::new();
            let mut heap = Heap::default();
            // The first `now` is the epoch, so that both count the same ticks.
            wheel.expire(base, &mut Vec::new());
            for step in 0..2_000 {
                match rng.random_range(0..10) {
                    0..=5 => {
                        let timer = rng.random_range(0..200);
                        let scale = [1_000, 300_000, 70_000_000, 15_000_000_000u64][rng.random_range(0..4)];
                        let ahead = Duration::from_micros(rng.random_range(0..scale));
                        let deadline = if rng.random_ratio(1, 10) { now / 2 } else { now + ahead };
                        wheel.schedule(base + now, timer, base + deadline);
                        let tick = deadline.as_nanos().div_ceil(1_000_000) as u64;
                        heap.schedule(timer, tick.max(now.as_millis() as u64));
                    }
                    6 => {
                        let timer = rng.random_range(0..200);
                        wheel.cancel(timer);
                        heap.set.remove(&timer);
                    }
                    _ => {
                        let scale = [1_000, 100_000, 3_000_000, 3_600_000_000u64][rng.random_range(0..4)];
                        let slept = now + Duration::from_micros(rng.random_range(0..scale));
                        let earliest = heap.set.values().min().map(|&t| Duration::from_millis(t));
                        match wheel.next_deadline() {
                            Some(next) => {
                                let next = next - base;
                                let earliest = earliest.expect("the wheel is empty when the heap is");
                                assert!(
                                    next <= earliest.max(now),
                                    "seed {seed} step {step}: {next:?} {earliest:?}"
                                );
                                now = if rng.random_ratio(1, 2) { next.max(now) } else { slept };
                            }
                            None => {
                                assert_eq!(earliest, None, "seed {seed} step {step}");
                                now = slept;
                            }
                        }
                        let mut due = Vec::new();
                        wheel.expire(base + now, &mut due);
                        let mut expected = heap.expire(now.as_millis() as u64);
                        due.sort_unstable();
                        expected.sort_unstable();
                        assert_eq!(due, expected, "seed {seed} step {step} now {now:?}");
                    }
                }
                assert_eq!(wheel.len(), heap.set.len(), "seed {seed} step {step}");
            }
        }
    }

    // Goal: laziness. A deadline that moves later costs nothing and the timer fires at the old one.
    #[test]
    fn a_later_deadline_is_ignored_and_an_earlier_one_taken() {
        let base = Instant::now();
        let mut wheel = Wheel::new();
        wheel.schedule(base, 3, base + 10 * MS);
        wheel.schedule(base, 3, base + 500 * MS);
        assert_eq!(wheel.next_deadline(), Some(base + 10 * MS));
        wheel.schedule(base, 3, base + 5 * MS);
        assert_eq!(wheel.next_deadline(), Some(base + 5 * MS));
        let mut due = Vec::new();
        wheel.expire(base + 4 * MS + MS / 2, &mut due);
        assert!(due.is_empty(), "{due:?}");
        wheel.expire(base + 5 * MS, &mut due);
        assert_eq!(due, [3]);
        assert!(wheel.is_empty());
    }

    // Goal: a wheel that lives longer than its 32-bit ticks. Method: one 7-day timer, re-armed over
    // 200 virtual days by following `next_deadline`; it must fire 28 times, each on its millisecond.
    #[test]
    fn runs_for_months() {
        let base = Instant::now();
        let week = Duration::from_secs(7 * 86_400);
        let mut wheel = Wheel::new();
        let (mut now, mut deadline, mut fired) = (base, base + week, 0);
        wheel.schedule(now, 0, deadline);
        while now < base + Duration::from_secs(200 * 86_400) {
            now = wheel.next_deadline().unwrap();
            let mut due = Vec::new();
            wheel.expire(now, &mut due);
            for timer in due {
                if now >= deadline {
                    assert_eq!(now, deadline);
                    fired += 1;
                    deadline += week;
                }
                wheel.schedule(now, timer, deadline);
            }
        }
        assert_eq!(fired, 28);
    }
}
