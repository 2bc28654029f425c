//! What an event log says, event by event.

use attestation::{Bank, Content, Event, EventLog, ReplayedLog, Separator, VariableClass};

use super::tpm::pcr_meaning;
use super::{Explained, Section};
use crate::words::boot::{BootSays, SecureBootSays, extends, image_path, one_line, secure_boot, tag_name, text};

const ALL_MEASURED: &str = "its digest is of this data";
const PART_MEASURED: &str = "its digest is of this text";
const NOT_MEASURED: &str = "its digest is of what was loaded; this is a label that nobody measured";
const EXTENDS_NOTHING: &str = "informs, extends no PCR: anybody can write it";

/// Every event in words.
pub fn explain_events(log: &EventLog<'_>) -> Section {
    let fields = log.events().iter().enumerate().map(|(index, event)| explain(index, event));
    Section { title: format!("Events ({})", log.events().len()), fields: fields.collect() }
}

/// The PCRs that the log leads to, a section for each bank.
pub fn explain_replay(log: &ReplayedLog<'_>) -> Vec<Section> {
    let of_bank = |bank: &Bank| {
        let values = (0..24).filter_map(|pcr| log.pcr(*bank, pcr).map(|value| (pcr, value)));
        let fields =
            values.map(|(pcr, value)| Explained::new(format!("PCR {pcr}"), hex::encode(value), pcr_meaning(pcr)));
        Section { title: format!("PCRs that these events lead to, bank {}", bank.name()), fields: fields.collect() }
    };
    log.log().banks().iter().map(of_bank).collect()
}

/// What is known if the log is true.
pub fn explain_boot(says: &BootSays) -> Section {
    let mut fields = vec![
        Explained::new("secure boot", says.secure_boot, "the first event of PCR 7")
            .look_if(says.secure_boot == SecureBootSays::Off, "the firmware starts anything")
            .look_if(says.secure_boot == SecureBootSays::NotShown, "PCR 7 does not begin with it: nothing is known"),
    ];
    for image in &says.images {
        let path = image.path.as_deref().unwrap_or("no path");
        let value = format!("{} ({path})", image.sha256);
        fields.push(Explained::new(
            "image",
            value,
            "Authenticode digest of what was started: `boot.images` of a policy",
        ));
    }
    if let Some(options) = &says.load_options {
        let meaning = "SHA-256 of the options that the kernel got; `boot.command_lines` of a policy has their text";
        fields.push(Explained::new("kernel options", options, meaning));
    }
    for initrd in &says.initrds {
        fields.push(Explained::new("initrd", initrd, "SHA-256 of the file: `boot.initrds` of a policy"));
    }
    for line in &says.command_lines {
        fields.push(Explained::new("command line", line, "text that a boot loader measured"));
    }
    for root in &says.verity_root_hashes {
        fields.push(Explained::new("dm-verity", root, "root hash on that command line"));
    }
    Section { title: "What is known, if the log is true".to_owned(), fields }
}

fn explain(index: usize, event: &Event<'_>) -> Explained {
    let pcr = if extends(event) { format!("PCR {}", event.pcr()) } else { "-".to_owned() };
    let field = format!("{index} {pcr} {}", event.type_name());
    let failed = *event.content() == Content::Separator(Separator::Error);
    Explained::new(field, one_line(&value(event)), meaning(event))
        .look_if(failed, "the firmware failed to measure something")
        .look_if(secure_boot(event.content()) == Some(false), "secure boot is off")
}

fn meaning(event: &Event<'_>) -> &'static str {
    match event.measured() {
        _ if !extends(event) => EXTENDS_NOTHING,
        Some(measured) if measured.len() == event.data().len() => ALL_MEASURED,
        Some(_) => PART_MEASURED,
        None => NOT_MEASURED,
    }
}

fn value(event: &Event<'_>) -> String {
    let data = event.data();
    let digest = || hex::encode(event.sha256());
    match event.content() {
        Content::StartupLocality(locality) => format!("PCR 0 starts with locality {locality}"),
        Content::NoAction => format!("{} bytes", data.len()),
        Content::Separator(Separator::Boot) => "the firmware goes on to boot".to_owned(),
        Content::Separator(Separator::Error) => "ERROR".to_owned(),
        Content::EfiAction(text) => format!("{text:?}"),
        Content::Variable(variable) => {
            let name = variable.name_text();
            match (variable.secure_boot(), variable.class) {
                (Some(true), _) => format!("{name} = on"),
                (Some(false), _) => format!("{name} = off"),
                (None, VariableClass::Authority) => {
                    format!("{name}: the entry that vouched for an image, {} bytes", variable.value.len())
                }
                (None, VariableClass::DriverConfig | VariableClass::Boot) if variable.value.len() <= 8 => {
                    format!("{name} = {}", hex::encode(variable.value))
                }
                (None, VariableClass::DriverConfig | VariableClass::Boot) => {
                    format!("{name}, {} bytes", variable.value.len())
                }
            }
        }
        Content::Tag { id, label } => format!("{}, {}, digest {}", tag_name(*id), text(label), digest()),
        Content::Ipl if event.measured().is_some() => text(data),
        Content::Ipl => format!("{}, digest {}", text(data), digest()),
        Content::BootApplication | Content::Driver => {
            let path = image_path(data).unwrap_or_else(|| "no path".to_owned());
            format!("{path}, Authenticode digest {}", digest())
        }
        Content::FirmwareBlob => format!("part of the firmware, digest {}", digest()),
        Content::CrtmVersion => format!("version of the firmware: {:?}", text(data)),
        Content::Gpt => format!("partition table, {} bytes", data.len()),
        Content::Other if event.type_name() == "other" => {
            format!("type {:#x}, {} bytes, digest {}", event.event_type(), data.len(), digest())
        }
        Content::Other => format!("{} bytes, digest {}", data.len(), digest()),
    }
}
