use caps::{CapSet, Capability};

use super::EngineError;

const NEEDED: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN];

/// Makes sure that the calling thread may change networks, before anything is touched.
pub(super) fn require() -> Result<(), EngineError> {
    let effective = caps::read(None, CapSet::Effective)
        .map_err(|error| EngineError::Privileges(error.to_string()))?;
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|capability| !effective.contains(capability))
        .map(Capability::to_string)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(EngineError::NotPermitted(missing.join(" and ")))
    }
}
