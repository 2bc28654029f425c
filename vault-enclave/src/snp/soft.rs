//! A soft platform in the place of a chip, named on the command line as `soft:DIR`.
//!
//! | below DIR | is |
//! |---|---|
//! | `report/` | a configfs-tsm tree as `/sys/kernel/config/tsm/report` is one, provider `sev_guest` |
//! | `derived-key` | a Unix stream socket; one request a connection |
//!
//! Request: MSG_KEY_REQ as the kernel takes it (`struct snp_derived_key_req`), 32 bytes, or 40 with LAUNCH_MIT_VECTOR
//! (message version 2); then the guest shuts its writing side down. Answer: MSG_KEY_RSP, 64 bytes (status u32 little-endian,
//! 28 zeros, the key), and the socket is closed.
//!
//! It weakens nothing: its reports chain to a root that a policy can trust only as `emulated`. Its derived keys protect
//! nothing, as whoever runs the soft platform has them.
