//! What an agent starts.

use attestation::Workload;

use super::{WireError, digest};
use crate::v1;

pub(super) fn read(workload: v1::Workload) -> Result<Workload, WireError> {
    const CODE: &str = "malformed-workload";
    let v1::Workload { program, arguments, environment, image } = workload;
    let image = if image.is_empty() { None } else { Some(digest(CODE, &image)?) };
    Ok(Workload {
        program: digest(CODE, &program)?,
        arguments: digest(CODE, &arguments)?,
        environment: digest(CODE, &environment)?,
        image,
    })
}

impl From<Workload> for v1::Workload {
    fn from(workload: Workload) -> Self {
        let Workload { program, arguments, environment, image } = workload;
        Self {
            program: program.as_bytes().to_vec(),
            arguments: arguments.as_bytes().to_vec(),
            environment: environment.as_bytes().to_vec(),
            image: image.map(|image| image.as_bytes().to_vec()).unwrap_or_default(),
        }
    }
}
