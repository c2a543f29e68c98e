//! The ready cache of a database: which tasks run next, so that a runner takes one up without a search in the tables.
//!
//! The tasks of one role in one queue are a line. A line holds the first of them, in the order in which they run, and a cursor. Each task of
//! the line that waits and has its place before the cursor is in the line, or a runner has it, or its key holds it back. What comes after the
//! cursor is read from the table when the line gets short ([`Lines::read`]). A line without a cursor knows all of its tasks.
//!
//! The cache may hold what does not wait any more: the runner that takes an entry looks at the row. It must not miss what waits. So a task is put into
//! its line after the commit that makes it wait. If there is no room for it, the cursor moves back, or [`Lines::overflow`] asks for a
//! sweep. A sweep puts the cursors of all lines that have tasks to the beginning.
//!
//! A key holds a task back while as many tasks of that key run as may. Then the task leaves the line, and the claims that hold the key are
//! marked: the process that ends one of them looks up the next task of the key in the table.

use crate::pg::process::backend::Process;

/// Lines of a database. If there are more, their tasks wait until a line has none.
pub const LINES: usize = 32;

/// The entries that a line holds.
const ENTRIES: usize = 128;

/// With fewer entries than this, a line is read on.
const LOW: usize = 32;

/// How many tasks are read from the table at once.
pub const BATCH: usize = ENTRIES - LOW;

/// Stands for the concurrency key of each task that is a part of an operation. These leave a runner to the others.
pub const OPERATION: u64 = u64::MAX;

/// The longest name of a queue, in bytes.
const NAME: usize = 255;

/// The place of a task in its line: by priority, the highest first, then by id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    /// The priority with its sign changed.
    against: i64,
    id: i64,
}

impl Rank {
    /// Before all tasks.
    const FIRST: Rank = Rank {
        against: i64::MIN,
        id: i64::MIN,
    };

    /// The priority and the id of the task at this place; None at the beginning.
    pub fn task(self) -> Option<(i32, i64)> {
        (self != Self::FIRST).then(|| (-self.against as i32, self.id))
    }
}

/// A task that may run.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub id: i64,
    /// Stands for the concurrency key, 0 for none.
    pub key: u64,
    pub priority: i32,
}

impl Entry {
    fn rank(&self) -> Rank {
        Rank {
            against: -i64::from(self.priority),
            id: self.id,
        }
    }
}

/// The limits of a queue, -1 for none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub running: i32,
    pub per_key: i32,
    pub is_paused: bool,
}

impl Limits {
    /// No limits.
    pub const NONE: Limits = Limits {
        running: -1,
        per_key: -1,
        is_paused: false,
    };

    fn runs_nothing(&self) -> bool {
        self.is_paused || self.running == 0
    }
}

/// Which line: the role, and what stands for the queue's name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Which {
    pub role: u32,
    pub queue: u64,
}

/// The tasks that run, as far as a line needs to know.
pub trait Running {
    /// How many of the queue run.
    fn of_queue(&self, queue: u64) -> i32;
    /// How many of the queue with this key run.
    fn of_key(&self, queue: u64, key: u64) -> i32;
    /// Whether the task runs. If it does, its runner puts it back at the end of the run: it may be the next attempt that came into the line
    /// before the process that made the last one has let go of the task.
    fn has(&self, task: i64) -> bool;
    /// A task was held back: those who run a task of the key look the next one up at its end.
    fn hold_back(&self, queue: u64, key: u64);
    /// How many more tasks of operations may run.
    fn room_for_operations(&self) -> u32 {
        u32::MAX
    }
}

#[repr(C)]
struct Line {
    /// The role is 0 in a line that is free.
    which: Which,
    name: [u8; NAME],
    name_len: u8,
    limits: Limits,
    /// The version of the settings of queues that the limits are from.
    limits_version: u64,
    /// Whether there may be tasks after the cursor.
    has_more: bool,
    cursor: Rank,
    /// Who reads on.
    reader: Process,
    /// Whether tasks have come meanwhile that the reader may not see and that have no room: the cursor stays where it is.
    missed: bool,
    first: u32,
    len: u32,
    entries: [Entry; ENTRIES],
}

impl Line {
    fn start(&mut self, which: Which, name: &[u8]) {
        self.which = which;
        self.name.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        self.name_len = name.len().min(NAME) as u8;
        self.limits = Limits::NONE;
        self.limits_version = u64::MAX;
        self.has_more = false;
        self.reader = Process::NONE;
        self.missed = false;
        (self.first, self.len) = (0, 0);
    }

    /// All of its tasks are read again.
    fn restart(&mut self) {
        self.has_more = true;
        self.cursor = Rank::FIRST;
        self.missed = true;
    }

    fn is_empty(&self) -> bool {
        self.len == 0 && !self.has_more && !self.is_being_read()
    }

    fn is_being_read(&self) -> bool {
        self.reader != Process::NONE
    }

    /// Whether it is to be read on.
    fn is_short(&self) -> bool {
        self.has_more && (self.len as usize) < LOW && !self.is_being_read()
    }

    fn entries(&self) -> &[Entry] {
        let first = self.first as usize;
        self.entries.get(first..first + self.len as usize).unwrap_or_default()
    }

    fn entry(&self, n: usize) -> Option<Entry> {
        self.entries().get(n).copied()
    }

    fn remove(&mut self, n: usize) {
        let first = self.first as usize;
        if n < self.len as usize {
            self.entries.copy_within(first..first + n, first + 1);
            self.first += 1;
            self.len -= 1;
        }
        if self.len == 0 {
            self.first = 0;
        }
    }

    /// The tasks from `rank` on have to be read from the table.
    fn read_from_before(&mut self, rank: Rank) {
        let before = Rank {
            against: rank.against,
            id: rank.id - 1,
        };
        if !self.has_more || before < self.cursor {
            self.cursor = before;
        }
        self.has_more = true;
    }

    /// Adds a task that waits, as everybody can see.
    fn push(&mut self, entry: Entry) {
        let rank = entry.rank();
        let is_beyond = self.has_more && rank > self.cursor;
        if is_beyond && !self.is_being_read() {
            return;
        }
        if self.len as usize == ENTRIES {
            let last = self.entries[self.first as usize + ENTRIES - 1].rank();
            self.missed = true;
            if rank > last {
                return self.read_from_before(rank);
            }
            self.len -= 1;
            self.read_from_before(last);
        }
        self.insert(entry);
    }

    /// Inserts an entry, for which there is room. Its key may have changed since the line got it.
    fn insert(&mut self, entry: Entry) {
        let at = match self.entries().binary_search_by(|other| other.rank().cmp(&entry.rank())) {
            Ok(at) => {
                self.entries[self.first as usize + at] = entry;
                return;
            }
            Err(at) => at,
        };
        let (first, len) = (self.first as usize, self.len as usize);
        if first > 0 && (at < len / 2 || first + len == ENTRIES) {
            self.entries.copy_within(first..first + at, first - 1);
            self.first -= 1;
        } else {
            self.entries.copy_within(first + at..first + len, first + at + 1);
        }
        self.entries[self.first as usize + at] = entry;
        self.len += 1;
    }

    /// Whether as many tasks run as may.
    fn is_held_back(&self, running: &impl Running) -> bool {
        self.limits.is_paused || self.limits.running >= 0 && running.of_queue(self.which.queue) >= self.limits.running
    }

    /// The place of the first entry that can run. Those before it that cannot are removed, but for parts of operations that have no room: these stay
    /// until others end.
    fn skip(&mut self, running: &impl Running) -> Option<usize> {
        let mut n = 0;
        while let Some(entry) = self.entry(n) {
            let is_part = entry.key == OPERATION;
            let is_full = entry.key != 0
                && !is_part
                && self.limits.per_key >= 0
                && running.of_key(self.which.queue, entry.key) >= self.limits.per_key;
            if is_full {
                running.hold_back(self.which.queue, entry.key);
            } else if !running.has(entry.id) {
                if !is_part || running.room_for_operations() > 0 {
                    return Some(n);
                }
                n += 1;
                continue;
            }
            self.remove(n);
        }
        None
    }

    /// How many of the entries can run, as far as operations have room.
    fn can_run(&self, running: &impl Running) -> u32 {
        let parts = self.entries().iter().filter(|entry| entry.key == OPERATION).count() as u32;
        match parts {
            0 => self.len,
            parts => self.len - parts + parts.min(running.room_for_operations()),
        }
    }
}

/// A copy of the name of a queue. Copying allocates nothing, so it may be done under a lock.
pub struct Name([u8; NAME], u8);

impl Name {
    /// The name.
    pub fn bytes(&self) -> &[u8] {
        self.0.get(..self.1.into()).unwrap_or_default()
    }
}

/// What a runner does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It runs this task.
    Task(Which, Entry),
    /// It reads the line on from this place, and hands the tasks to [`Lines::read`].
    Read(Which, Rank),
    /// It reads the settings of the line's queue, and hands them to [`Lines::set_limits`].
    Limits(Which),
    Nothing,
}

/// The lines of a database. Zeroed memory has none.
#[repr(C)]
pub struct Lines {
    /// Counts the changes of settings of queues.
    version: u64,
    /// Whether tasks have no line.
    overflow: bool,
    lines: [Line; LINES],
}

impl Lines {
    fn find(&mut self, which: Which) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.which == which)
    }

    fn find_or_start(&mut self, which: Which, name: &[u8]) -> Option<&mut Line> {
        let at = match self.lines.iter().position(|line| line.which == which) {
            Some(at) => at,
            None => {
                let at = self
                    .lines
                    .iter()
                    .position(|line| line.which.role == 0)
                    .or_else(|| self.lines.iter().position(Line::is_empty))?;
                self.lines[at].start(which, name);
                at
            }
        };
        Some(&mut self.lines[at])
    }

    /// Adds a task that waits, as everybody can see.
    pub fn push(&mut self, which: Which, name: &[u8], entry: Entry) {
        match self.find_or_start(which, name) {
            Some(line) => line.push(entry),
            None => self.overflow = true,
        }
    }

    /// Forgets the tasks of a role.
    pub fn forget(&mut self, role: u32) {
        for line in self.lines.iter_mut().filter(|line| line.which.role == role) {
            line.which.role = 0;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for line in &mut self.lines {
            line.which.role = 0;
        }
        self.overflow = false;
    }

    /// Whether a sweep would find room for tasks that have no line.
    pub fn overflow(&self) -> bool {
        self.overflow && self.lines.iter().any(|line| line.which.role == 0 || line.is_empty())
    }

    /// A sweep begins, which calls [`Lines::restart`] for lines that have tasks. No runner comes for the others.
    pub fn sweep_begins(&mut self) {
        self.overflow = false;
        self.version += 1;
    }

    /// More lines have tasks than a sweep looks for. There is no room for some, and those that are here may be among them.
    pub fn has_no_room(&mut self) {
        self.overflow = true;
        for line in self.lines.iter_mut().filter(|line| line.which.role != 0) {
            line.restart();
        }
    }

    /// The line has tasks that wait: all of them are read again.
    pub fn restart(&mut self, which: Which, name: &[u8]) {
        match self.find_or_start(which, name) {
            Some(line) => line.restart(),
            None => self.overflow = true,
        }
    }

    /// The settings of queues have changed.
    pub fn limits_change(&mut self) {
        self.version += 1;
    }

    /// The version of the settings of queues. Taken before the settings are read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The settings of a queue, as of `version`. A queue that runs nothing gives its lines back, or many of them would leave no room for others: when its
    /// settings change, a sweep finds its tasks.
    pub fn set_limits(&mut self, queue: u64, limits: Limits, version: u64) {
        let is_known = self.version == version;
        for line in &mut self.lines {
            if line.which.role != 0 && line.which.queue == queue {
                (line.limits, line.limits_version) = (limits, version);
                if is_known && limits.runs_nothing() {
                    line.which.role = 0;
                }
            }
        }
    }

    /// The name of the line's queue. None if the line was given back.
    pub fn name(&self, which: Which) -> Option<Name> {
        let line = self.lines.iter().find(|line| line.which == which)?;
        Some(Name(line.name, line.name_len))
    }

    /// What a runner of this role does next. A task leaves its line: the caller claims it before it unlocks the lines.
    pub fn next(&mut self, role: u32, me: Process, running: &impl Running) -> Next {
        let mut best: Option<(Rank, usize, usize)> = None;
        for (n, line) in self.lines.iter_mut().enumerate() {
            if line.which.role != role || line.is_empty() {
                continue;
            }
            if line.limits_version != self.version {
                return Next::Limits(line.which);
            }
            if line.is_held_back(running) {
                continue;
            }
            let first = line.skip(running);
            if line.is_short() {
                line.reader = me;
                line.missed = false;
                return Next::Read(line.which, line.cursor);
            }
            if let Some(at) = first
                && let Some(entry) = line.entry(at)
                && best.is_none_or(|(rank, ..)| entry.rank() < rank)
            {
                best = Some((entry.rank(), n, at));
            }
        }
        let Some((line, at)) = best.and_then(|(_, n, at)| Some((self.lines.get_mut(n)?, at))) else {
            return Next::Nothing;
        };
        match line.entry(at) {
            Some(entry) => {
                line.remove(at);
                Next::Task(line.which, entry)
            }
            None => Next::Nothing,
        }
    }

    /// The reader of the line has read these tasks, in order; `is_end` if there are no more. If the line was given back meanwhile and has begun
    /// anew, what was read before says nothing of it.
    pub fn read(&mut self, which: Which, reader: Process, entries: &[Entry], is_end: bool) {
        let Some(line) = self.find(which).filter(|line| line.reader == reader) else {
            return;
        };
        line.reader = Process::NONE;
        let mut read_to = None;
        for entry in entries {
            if line.len as usize == ENTRIES {
                break;
            }
            line.insert(*entry);
            read_to = Some(entry.rank());
        }
        if core::mem::take(&mut line.missed) {
            return;
        }
        if is_end && read_to == entries.last().map(Entry::rank) {
            line.has_more = false;
        } else if let Some(rank) = read_to {
            line.cursor = rank;
        }
    }

    /// This process reads no line any more: it has failed, or ends.
    pub fn reader_leaves(&mut self, reader: Process) {
        for line in self.lines.iter_mut().filter(|line| line.reader == reader) {
            line.reader = Process::NONE;
        }
    }

    /// Whether a line of another role waits for the same queue.
    pub fn others_wait(&self, which: Which) -> bool {
        self.lines.iter().any(|line| {
            let other = line.which;
            other.queue == which.queue && other.role != 0 && other.role != which.role && !line.is_empty()
        })
    }

    /// For each role that has tasks which can run: how many, at most `most`.
    pub fn wanted(&self, running: &impl Running, most: u32) -> [(u32, u32); LINES] {
        let mut roles = [(0, 0); LINES];
        for line in &self.lines {
            let Which { role, queue } = line.which;
            if role == 0 || line.is_empty() || line.limits_version == self.version && line.is_held_back(running) {
                continue;
            }
            let mut can = if line.has_more { most } else { line.can_run(running) };
            if line.limits_version == self.version && line.limits.running >= 0 {
                can = can.min((line.limits.running - running.of_queue(queue)).max(0) as u32);
            }
            if let Some(entry) = roles.iter_mut().find(|entry| entry.0 == role || entry.0 == 0) {
                *entry = (role, (entry.1 + can).min(most));
            }
        }
        roles
    }
}

#[cfg(feature = "probe")]
impl Lines {
    /// Whether the task is in its line, or behind the cursor, or a sweep will look for it.
    pub fn knows(&self, which: Which, entry: Entry) -> bool {
        let line = self.lines.iter().find(|line| line.which == which);
        self.overflow
            || line.is_some_and(|line| {
                line.entries().contains(&entry) || line.has_more && entry.rank() > line.cursor || line.is_being_read()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const Q: Which = Which { role: 10, queue: 1 };

    #[derive(Default)]
    struct Claims {
        tasks: Vec<(u64, u64, i64)>,
        held_back: RefCell<Vec<u64>>,
        /// How many parts of operations run, of at most one.
        parts: u32,
    }

    impl Running for Claims {
        fn of_queue(&self, queue: u64) -> i32 {
            self.tasks.iter().filter(|task| task.0 == queue).count() as i32
        }
        fn of_key(&self, queue: u64, key: u64) -> i32 {
            self.tasks
                .iter()
                .filter(|task| (task.0, task.1) == (queue, key))
                .count() as i32
        }
        fn has(&self, task: i64) -> bool {
            self.tasks.iter().any(|other| other.2 == task)
        }
        fn hold_back(&self, _queue: u64, key: u64) {
            self.held_back.borrow_mut().push(key);
        }
        fn room_for_operations(&self) -> u32 {
            1_u32.saturating_sub(self.parts)
        }
    }

    fn lines() -> Box<Lines> {
        const FREE: Line = Line {
            which: Which { role: 0, queue: 0 },
            name: [0; NAME],
            name_len: 0,
            limits: Limits::NONE,
            limits_version: 0,
            has_more: false,
            cursor: Rank::FIRST,
            reader: Process::NONE,
            missed: false,
            first: 0,
            len: 0,
            entries: [Entry {
                id: 0,
                key: 0,
                priority: 0,
            }; ENTRIES],
        };
        let mut lines = Box::new(Lines {
            version: 0,
            overflow: false,
            lines: [FREE; LINES],
        });
        lines.sweep_begins();
        lines
    }

    fn entry(id: i64) -> Entry {
        Entry {
            id,
            key: 0,
            priority: 0,
        }
    }

    fn push(lines: &mut Lines, entry: Entry) {
        lines.push(Q, b"q", entry);
        let version = lines.version();
        lines.set_limits(Q.queue, Limits::NONE, version);
    }

    fn me() -> Process {
        Process::new(1, 1)
    }

    fn take(lines: &mut Lines, running: &Claims) -> Option<i64> {
        match lines.next(Q.role, me(), running) {
            Next::Task(_, entry) => Some(entry.id),
            Next::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_order_is_priority_then_id() {
        let (mut lines, running) = (lines(), Claims::default());
        for (id, priority) in [(3, 0), (1, 0), (2, 5), (4, -1), (5, 5), (1, 0)] {
            push(&mut lines, Entry { id, priority, key: 0 });
        }
        let taken: Vec<_> = core::iter::from_fn(|| take(&mut lines, &running)).collect();
        assert_eq!(taken, [2, 5, 1, 3, 4]);
    }

    #[test]
    fn what_has_no_room_is_read_from_the_table() {
        let (mut lines, running) = (lines(), Claims::default());
        let table: Vec<i64> = (1..=1000).collect();
        for id in table.iter().rev() {
            push(&mut lines, entry(*id));
        }
        let mut taken = Vec::new();
        loop {
            match lines.next(Q.role, me(), &running) {
                Next::Task(_, entry) => taken.push(entry.id),
                Next::Read(which, rank) => {
                    let after = rank.task().map_or(0, |(_, id)| id);
                    let left = table.iter().filter(|id| **id > after && !taken.contains(*id));
                    let batch: Vec<_> = left.take(BATCH).map(|id| entry(*id)).collect();
                    lines.read(which, me(), &batch, batch.len() < BATCH);
                }
                Next::Nothing => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken, table);
    }

    #[test]
    fn a_sweep_calls_runners_only_for_lines_with_tasks() {
        let (mut lines, running) = (lines(), Claims::default());
        let other = Which { role: 11, queue: 2 };
        for which in [Q, other] {
            lines.restart(which, b"q");
            let version = lines.version();
            lines.set_limits(which.queue, Limits::NONE, version);
            assert_eq!(lines.next(which.role, me(), &running), Next::Read(which, Rank::FIRST));
            lines.read(which, me(), &[], true);
        }
        let roles = |lines: &Lines| lines.wanted(&running, 2).map(|(role, _)| role);
        assert!(roles(&lines).iter().all(|role| *role == 0));
        lines.sweep_begins();
        lines.restart(other, b"q");
        assert_eq!(roles(&lines)[..2], [11, 0]);
        // A sweep that does not look for all lines leaves none out.
        lines.has_no_room();
        assert_eq!(roles(&lines)[..3], [10, 11, 0]);
    }

    #[test]
    fn a_late_commit_before_the_cursor_is_taken_next() {
        let (mut lines, running) = (lines(), Claims::default());
        lines.restart(Q, b"q");
        let version = lines.version();
        lines.set_limits(Q.queue, Limits::NONE, version);
        let Next::Read(which, _) = lines.next(Q.role, me(), &running) else {
            panic!()
        };
        let batch: Vec<_> = (100..100 + BATCH as i64).map(entry).collect();
        lines.read(which, me(), &batch, false);
        push(&mut lines, entry(7));
        assert_eq!(take(&mut lines, &running), Some(7));
        assert_eq!(take(&mut lines, &running), Some(100));
        // What is after the cursor is read with the rest.
        push(&mut lines, entry(5000));
        assert_eq!(lines.find(Q).map(|line| line.len), Some(BATCH as u32 - 1));
    }

    /// The line is given back and begins anew while it is read: what was read then does not end the reading that has begun since.
    #[test]
    fn a_reading_of_a_line_that_began_anew_is_dropped() {
        let (mut lines, running) = (lines(), Claims::default());
        let begin = |lines: &mut Lines, reader| {
            lines.restart(Q, b"q");
            let version = lines.version();
            lines.set_limits(Q.queue, Limits::NONE, version);
            assert!(matches!(lines.next(Q.role, reader, &running), Next::Read(..)));
        };
        let other = Process::new(2, 2);
        begin(&mut lines, other);
        lines.forget(Q.role);
        begin(&mut lines, me());
        lines.read(Q, other, &[], true);
        lines.read(Q, me(), &[entry(7)], true);
        assert_eq!(take(&mut lines, &running), Some(7));
    }

    #[test]
    fn operations_leave_a_runner_to_others() {
        let (mut lines, mut running) = (lines(), Claims::default());
        let part = |id| Entry {
            id,
            priority: 0,
            key: OPERATION,
        };
        for entry in [part(1), part(2), entry(3), part(4), entry(5)] {
            push(&mut lines, entry);
        }
        // A limit for each key of the queue is not for them.
        let version = lines.version();
        let limits = Limits {
            per_key: 1,
            ..Limits::NONE
        };
        lines.set_limits(Q.queue, limits, version);
        assert_eq!(lines.wanted(&running, 8)[0], (Q.role, 3));
        assert_eq!(take(&mut lines, &running), Some(1));
        running.parts = 1;
        assert_eq!(lines.wanted(&running, 8)[0], (Q.role, 2));
        assert_eq!(take(&mut lines, &running), Some(3));
        assert_eq!(take(&mut lines, &running), Some(5));
        assert_eq!(take(&mut lines, &running), None);
        assert_eq!(lines.wanted(&running, 8)[0], (Q.role, 0));
        running.parts = 0;
        assert_eq!(take(&mut lines, &running), Some(2));
        assert_eq!(take(&mut lines, &running), Some(4));
        assert_eq!(take(&mut lines, &running), None);
    }

    #[test]
    fn what_limits_hold_back_leaves_the_others_free() {
        let mut lines = lines();
        let mut running = Claims::default();
        let version = lines.version();
        for id in 1..=4 {
            lines.push(
                Q,
                b"q",
                Entry {
                    key: 1 + id as u64 % 2,
                    ..entry(id)
                },
            );
        }
        let limits = Limits {
            per_key: 1,
            ..Limits::NONE
        };
        lines.set_limits(Q.queue, limits, version);
        assert_eq!(take(&mut lines, &running), Some(1));
        running.tasks.push((Q.queue, 2, 1));
        assert_eq!(take(&mut lines, &running), Some(2));
        running.tasks.push((Q.queue, 1, 2));
        assert_eq!(take(&mut lines, &running), None);
        assert_eq!(*running.held_back.borrow(), [2, 1]);
        lines.set_limits(
            Q.queue,
            Limits {
                running: 2,
                ..Limits::NONE
            },
            version,
        );
        lines.push(Q, b"q", entry(9));
        assert_eq!(take(&mut lines, &running), None);
        running.tasks.pop();
        assert_eq!(take(&mut lines, &running), Some(9));
        lines.limits_change();
        lines.push(Q, b"q", entry(10));
        assert_eq!(lines.next(Q.role, me(), &running), Next::Limits(Q));
    }

    #[test]
    fn more_lines_than_fit_are_swept_later() {
        let (mut lines, running) = (lines(), Claims::default());
        for queue in 0..=LINES as u64 {
            lines.push(Which { role: 10, queue }, b"q", entry(queue as i64 + 1));
        }
        assert!(!lines.overflow());
        let version = lines.version();
        for queue in 0..LINES as u64 {
            lines.set_limits(queue, Limits::NONE, version);
        }
        assert_eq!(take(&mut lines, &running), Some(1));
        assert!(lines.overflow());
    }

    /// A limit says so of many queues, and the settings that a runner has read may be old by then.
    #[test]
    fn a_queue_that_runs_nothing_leaves_its_room_to_others() {
        let none = [
            Limits {
                is_paused: true,
                ..Limits::NONE
            },
            Limits {
                running: 0,
                ..Limits::NONE
            },
        ];
        let (mut lines, running) = (lines(), Claims::default());
        for queue in 1..=LINES as u64 {
            lines.push(Which { role: Q.role, queue }, b"q", entry(queue as i64));
        }
        let other = Which {
            role: Q.role,
            queue: 1000,
        };
        lines.push(other, b"other", entry(1000));
        assert!(!lines.overflow(), "there is no room");
        let before = lines.version();
        lines.limits_change();
        for queue in 1..=LINES as u64 {
            lines.set_limits(queue, none[queue as usize % 2], before);
        }
        assert!(!lines.overflow(), "the settings are old");
        let version = lines.version();
        for queue in 1..=LINES as u64 {
            lines.set_limits(queue, none[queue as usize % 2], version);
        }
        assert!(lines.overflow(), "a sweep finds room");
        lines.sweep_begins();
        lines.restart(other, b"other");
        assert!(!lines.overflow());
        let version = lines.version();
        lines.set_limits(other.queue, Limits::NONE, version);
        assert_eq!(lines.next(Q.role, me(), &running), Next::Read(other, Rank::FIRST));
        // Of a line that was given back meanwhile a runner reads nothing.
        assert!(lines.name(other).is_some_and(|name| name.bytes() == b"other"));
        lines.set_limits(other.queue, none[0], version);
        assert!(lines.name(other).is_none());
    }
}
