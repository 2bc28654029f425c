//! What an agent starts, beside its evidence.

use attestation::Workload;

use crate::samples::*;

pub(crate) fn workload() -> Workload {
    Workload { program: digest(7), arguments: digest(8), environment: digest(9), image: Some(digest(10)) }
}

fn release() -> ReleaseRequest {
    let lease_key = LeaseKey::try_from([2; 32].as_slice()).unwrap();
    let workload = Some(workload());
    ReleaseRequest { session: [1; 16], hpke_key: hpke_key(), lease_key, evidence: evidence(), workload }
}

fn renewal() -> RenewRequest {
    RenewRequest {
        session: [1; 16],
        lease_id: digest(1),
        evidence: evidence(),
        lease: lease(),
        lease_signature: [3; 64],
        workload: Some(workload()),
    }
}

#[test]
fn a_workload_with_anything_but_digests_is_refused() {
    refuses!(ReleaseRequest, v1::ReleaseKeysRequest, release();
        "malformed-workload": |m| m.workload.as_mut().unwrap().program.push(0),
        "malformed-workload": |m| m.workload.as_mut().unwrap().program.clear(),
        "malformed-workload": |m| m.workload.as_mut().unwrap().arguments.clear(),
        "malformed-workload": |m| m.workload.as_mut().unwrap().environment.clear(),
        "malformed-workload": |m| m.workload.as_mut().unwrap().image.push(0),
        "malformed-workload": |m| m.workload = Some(v1::Workload::default()),
    );
    refuses!(RenewRequest, v1::RenewLeaseRequest, renewal();
        "malformed-workload": |m| m.workload.as_mut().unwrap().program.push(0),
        "malformed-workload": |m| m.workload.as_mut().unwrap().image.truncate(31),
    );
}
