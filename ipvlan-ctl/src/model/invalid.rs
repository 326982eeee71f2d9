use thiserror::Error;

/// One wrong input: which field, what was given, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid {field} {value:?}: {allowed}")]
pub struct Invalid {
    /// The flag or option as the user wrote it, such as `--subnet` or `-o ipvlan_mode`.
    pub field: String,
    /// What was given.
    pub value: String,
    /// What is allowed instead, as the end of a sentence.
    pub allowed: String,
}

impl Invalid {
    pub fn new(
        field: impl Into<String>,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: value.into(),
            allowed: allowed.into(),
        }
    }
}
