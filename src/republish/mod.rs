//! Viewers are served here: each protocol in its folder. All read the [bus](crate::bus); none knows where a stream
//! comes from.

pub mod health;
pub mod http;
