//! Who may: users, passwords, stream keys, limits.

pub mod password;
