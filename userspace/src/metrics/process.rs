//! The process itself: memory, CPU time, descriptors. From `/proc/self` and the kernel's clock; what can't be read is left
//! out.

use super::{Collected, Value, table};
use crate::memory::kilobytes;
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use std::fs;

/// What `beam status -j` tells of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ProcessStatus {
    /// CPU time since the start, of all threads.
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
}

impl ProcessStatus {
    pub(crate) fn now() -> Self {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The listing opens one descriptor of its own.
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|list| (list.count() as u64).saturating_sub(1));
        Self {
            cpu_seconds: spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9,
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }

    /// For a person.
    pub(crate) fn line(&self) -> String {
        let memory = self
            .resident_bytes
            .map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0));
        let fds = self.open_fds.map_or("-".to_owned(), |n| n.to_string());
        format!("process: memory {memory}   CPU {:.1} s   descriptors {fds}", self.cpu_seconds)
    }

    pub(super) fn collect(&self, to: &mut Collected) {
        to.set(&table::PROCESS_CPU, Value::Real(self.cpu_seconds));
        let gauges = [
            (&table::PROCESS_RESIDENT, self.resident_bytes),
            (&table::PROCESS_VIRTUAL, self.virtual_bytes),
            (&table::PROCESS_FDS, self.open_fds),
            (&table::PROCESS_FDS_MAX, self.max_fds),
        ];
        for (spec, value) in gauges {
            if let Some(value) = value {
                to.set(spec, Value::Whole(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the numbers are of this process. Method: memory, CPU time and a descriptor are used, and seen.
    use super::*;

    #[test]
    fn what_the_process_uses_is_seen() {
        let before = ProcessStatus::now();
        let memory = vec![1_u8; 64 << 20];
        let files: Vec<_> = (0..5).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let after = ProcessStatus::now();
        assert!(memory.iter().all(|&byte| byte == 1));
        assert!(after.resident_bytes.unwrap() >= memory.len() as u64);
        assert!(after.virtual_bytes >= after.resident_bytes);
        assert!(after.cpu_seconds > 0.0 && after.cpu_seconds >= before.cpu_seconds);
        // Other tests of this process open and close, too.
        assert!(after.open_fds.unwrap() >= files.len() as u64 + 3);
        assert!(after.max_fds.is_none_or(|max| max >= after.open_fds.unwrap()));
        assert_eq!(kilobytes("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kilobytes("VmRSS: many kB", "VmRSS:"), None);
    }
}
