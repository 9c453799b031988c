//! Whether a run fits into memory, asked before anything is started.

use pgrad_algos::{Need, Needs};
use std::fs::read_to_string;
use std::path::Path;
use thiserror::Error;

/// Share of the limit from which on a run is warned of.
const WARN_FROM: f64 = 0.8;
/// Parts that are named, at most.
const NAMED: usize = 4;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// Whose limit it is.
    pub whose: &'static str,
}

/// A run that does not fit.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("the run needs about {needs}, but {whose} has {has}: {parts}\n  hint: lower {largest}", whose = limit.whose, has = gigabytes(limit.bytes as f64))]
pub struct TooLarge {
    needs: String,
    limit: Limit,
    parts: String,
    largest: &'static str,
}

/// Checks what a run needs against what there is; returns a warning when it nearly does not fit.
///
/// # Errors
/// When it does not fit.
pub fn check(needs: &Needs, limit: Option<Limit>) -> Result<Option<String>, TooLarge> {
    let Some(limit) = limit else { return Ok(None) };
    let (bytes, has) = (needs.bytes(), limit.bytes as f64);
    if bytes > has {
        return Err(TooLarge {
            needs: gigabytes(bytes),
            limit,
            parts: parts(needs),
            largest: needs.parts().first().map_or("the sizes of the run", |need| need.depends_on),
        });
    }
    Ok((bytes > WARN_FROM * has).then(|| {
        let (whose, has) = (limit.whose, gigabytes(has));
        format!("the run needs about {} of the {has} that {whose} has: {}", gigabytes(bytes), parts(needs))
    }))
}

/// The largest parts, and what they depend on.
fn parts(needs: &Needs) -> String {
    let named = |need: &Need| format!("{} {} ({})", gigabytes(need.bytes), need.part, need.depends_on);
    let worth = |need: &&Need| need.bytes > 0.01 * needs.bytes();
    needs.parts().iter().take(NAMED).filter(worth).map(named).collect::<Vec<_>>().join("; ")
}

/// `1.2 GB`.
fn gigabytes(bytes: f64) -> String {
    format!("{:.1} GB", bytes / 1e9)
}

/// The least of what this process may use: the limits of its control groups, and the memory of the machine.
/// None where the system does not say.
#[must_use]
pub fn limit() -> Option<Limit> {
    limit_of(Path::new("/"))
}

/// [`limit`], of a system whose files are below `root`.
fn limit_of(root: &Path) -> Option<Limit> {
    let read = |path: &str| read_to_string(root.join(path)).unwrap_or_default();
    let machine = read("proc/meminfo").lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kilobytes.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = read("proc/self/cgroup");
    let group = groups.lines().flat_map(|line| {
        let mut cells = line.splitn(3, ':').skip(1);
        let (controllers, path) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        // Version 2 has one hierarchy without names; beside version 1 it is mounted aside.
        let (mounts, file): (&[&str], _) = if controllers.is_empty() {
            (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
        } else {
            (&[], "")
        };
        let path = path.trim_start_matches('/').to_owned();
        // Every group above has a limit of its own. In a container the path may not be there, but its root
        // is.
        let within = move |mount: &&str| {
            let above = Path::new(&path).ancestors().map(|at| Path::new(mount).join(at).join(file));
            above.collect::<Vec<_>>()
        };
        mounts.iter().flat_map(within).collect::<Vec<_>>()
    });
    let group =
        group.filter_map(|file| read_to_string(root.join(file)).ok()?.trim().parse::<u64>().ok()).min();
    let limit = |whose| move |bytes| Limit { bytes, whose };
    let known = [group.map(limit("its control group")), machine.map(limit("this machine"))];
    known.into_iter().flatten().min_by_key(|limit| limit.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> Option<Limit> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_of(root.path())
    }

    #[test]
    fn the_least_limit_counts() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n");
        let machine = Some(Limit { bytes: 2 << 20, whose: "this machine" });
        let group = |bytes| Some(Limit { bytes, whose: "its control group" });
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MACHINE]), machine);
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let own = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(system(&[MACHINE, v2, own]), machine);
        assert_eq!(system(&[MACHINE, v2, own, ("sys/fs/cgroup/a/memory.max", "4096\n")]), group(4096));
        // A container sees its own group as the root.
        assert_eq!(system(&[MACHINE, v2, ("sys/fs/cgroup/memory.max", "512\n")]), group(512));
        let v1 = ("proc/self/cgroup", "5:cpu:/\n4:hugetlb,memory:/x\n0::/\n");
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(system(&[MACHINE, v1, unlimited]), machine);
        let limited = ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1024\n");
        assert_eq!(system(&[MACHINE, v1, unlimited, limited]), group(1024));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_parts_and_what_is_near_is_warned_of() {
        let need = |part, bytes, depends_on| Need { part, bytes, depends_on };
        let needs = Needs::of(vec![need("networks", 1e9, "hidden"), need("rollout", 6e9, "n_steps")]);
        let of = |bytes| Some(Limit { bytes, whose: "this machine" });
        assert_eq!(check(&needs, None), Ok(None));
        assert_eq!(check(&needs, of(9_000_000_000)), Ok(None));
        let warning = check(&needs, of(8_000_000_000)).unwrap().unwrap();
        assert!(
            warning.starts_with("the run needs about 7.0 GB of the 8.0 GB that this machine has: "),
            "{warning}"
        );
        let refused = check(&needs, of(4_000_000_000)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the run needs about 7.0 GB, but this machine has 4.0 GB: 6.0 GB rollout (n_steps); 1.0 GB networks \
             (hidden)\n  hint: lower n_steps"
        );
    }
}
