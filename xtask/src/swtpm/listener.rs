//! Whether a process itself listens on given ports (/proc), so that a TPM of somebody else who won a port is never
//! taken for ours.

use std::fs;

/// Whether process `pid` listens on every one of these ports of 127.0.0.1.
pub(crate) fn owns(pid: u32, ports: &[u16]) -> bool {
    let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/tcp")) else {
        return false;
    };
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let sockets: Vec<_> = descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| inode(target.to_str()?))
        .collect();
    ports.iter().all(|port| table.lines().filter_map(|line| listening(line, *port)).any(|i| sockets.contains(&i)))
}

/// The inode in `socket:[12345]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The inode of a line of /proc/net/tcp (proc(5)) that listens (state 0A) on 127.0.0.1:`port`.
fn listening(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    (local == format!("0100007F:{port:04X}") && state == "0A").then(|| inode.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_the_process_that_listens_owns_the_port() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(owns(std::process::id(), &[port]));
        assert!(!owns(1, &[port]));
        drop(socket);
        assert!(!owns(std::process::id(), &[port]));
    }
}
