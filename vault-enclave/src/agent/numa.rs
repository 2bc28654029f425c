//! Which NUMA nodes the memory of `run` comes from, as the kernel's tmpfs takes it (tmpfs(5), `mpol`).

use std::fmt;
use std::str::FromStr;

/// A placement of memory on the nodes of a machine, written as the option `mpol` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numa {
    mode: Mode,
    /// A list such as `0,2-3`; empty means all nodes.
    nodes: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Interleave,
    Bind,
}

/// A text that names no placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaError(String);

impl FromStr for Numa {
    type Err = NumaError;

    fn from_str(text: &str) -> Result<Self, NumaError> {
        let refused = || NumaError(text.to_owned());
        let (mode, nodes) = text.split_once(':').map_or((text, None), |(mode, nodes)| (mode, Some(nodes)));
        let mode = match mode {
            "interleave" => Mode::Interleave,
            // To all nodes would be to none.
            "bind" if nodes.is_some() => Mode::Bind,
            _ => return Err(refused()),
        };
        // It becomes a mount option: nothing but numbers and ranges of them gets there.
        let is_range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let node = |number: &str| number.parse::<u16>().ok().filter(|_| !number.starts_with('+'));
            node(first).zip(node(last)).is_some_and(|(first, last)| first <= last)
        };
        let nodes = nodes.map_or(Ok(String::new()), |nodes| {
            if nodes.split(',').all(is_range) { Ok(nodes.to_owned()) } else { Err(refused()) }
        })?;
        Ok(Self { mode, nodes })
    }
}

impl fmt::Display for Numa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Interleave => "interleave",
            Mode::Bind => "bind",
        };
        if self.nodes.is_empty() { f.write_str(mode) } else { write!(f, "{mode}:{}", self.nodes) }
    }
}

impl fmt::Display for NumaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is neither interleave, interleave:NODES nor bind:NODES, with nodes as in 0,2-3", self.0)
    }
}

impl std::error::Error for NumaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_modes_and_lists_of_nodes() {
        for good in ["interleave", "interleave:0-3", "bind:0", "bind:0,2-3"] {
            assert_eq!(good.parse::<Numa>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "bind",
            "bind:",
            "prefer:0",
            "bind:0,size=1",
            "bind:3-1",
            "bind:+1",
            "interleave:",
            "bind:0-",
            "bind: 0",
        ] {
            assert_eq!(bad.parse::<Numa>(), Err(NumaError(bad.to_owned())), "{bad}");
        }
    }
}
