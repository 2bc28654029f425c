//! Standing approvals and break-glass.

use crate::samples::*;

fn permit(kind: PermitKind) -> ProposedPermit {
    let (rule, model) = ("serving".parse().unwrap(), "llama".parse().unwrap());
    let pcrs = Some(format!("11={}", "66".repeat(32)).parse().unwrap());
    let (version, platform, launch) = (Some("2.1".parse().unwrap()), Some(digest(7)), Some([5; 48]));
    let permit = Permit { kind, rule, model, version, platform, launch, pcrs, releases: 64, until: UnixTime(9) };
    let (statement, signature) = ("s".repeat(1024), "s".repeat(4096));
    ProposedPermit { object: permit.object(), permit, statement, signature }
}

#[test]
fn permits_come_back_as_they_went_and_are_held_to_their_bounds() {
    for kind in [PermitKind::Standing, PermitKind::BreakGlass] {
        comes_back::<_, v1::SubmitPermitRequest>(permit(kind));
    }
    let ProposedPermit { object, permit: given, .. } = permit(PermitKind::Standing);
    let active = || ActivePermit { entry: 3, object, permit: given.clone(), left: 64 };
    comes_back::<_, v1::PermitSummary>(active());
    refuses!(ProposedPermit, v1::SubmitPermitRequest, permit(PermitKind::Standing);
        "malformed-permit": |m| m.permit.push(b' '),
        "malformed-permit": |m| m.permit.clear(),
        "malformed-permit": |m| m.permit = vec![b' '; 4097],
        "malformed-statement": |m| m.statement.push(b's'),
        "malformed-statement": |m| m.statement = vec![0xff],
        "malformed-signature": |m| m.signature.push('s'),
    );
    refuses!(ActivePermit, v1::PermitSummary, active();
        "malformed-permit": |m| m.permit.push(b' '),
        "malformed-object": |m| m.object[0] ^= 1,
        "malformed-object": |m| m.object.push(0),
        "malformed-left": |m| m.left += 1,
    );
}
