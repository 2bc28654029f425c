//! Places that fail, and what is read from the next one.
