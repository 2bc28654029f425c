//! A measurement of the data path as tables.

use serde_json::Value;

/// On stdout.
pub(super) fn print(measured: &Value, profile: &str) {
    println!(
        "\n{:<34} {:>8}  {:>8} {:>8} {:>9}   GB/s, CPU s/GB; {} bytes, {} runs, {profile} build",
        "", "median", "least", "most", "CPU", measured["bytes"], measured["runs"]
    );
    for row in rows(&measured["rows"]) {
        let [rate, least, most, cpu] = ["gb_s", "least", "most", "cpu_s_gb"].map(|field| number(row, field));
        println!("{:<34} {rate:>8.2}  {least:>8.2} {most:>8.2} {cpu:>9.3}", text(row));
    }
    println!("upload, once: {:.2} GB/s", number(measured, "upload_gb_s"));

    println!(
        "\n{:<34} {:>8} {:>13} {:>8} {:>9}   seconds since the agent started",
        "", "keys", "first tensor", "GB", "MiB"
    );
    for row in rows(&measured["rows"]).filter(|row| row.get("keys_s").is_some()) {
        let [keys, first, bytes, memory] =
            ["keys_s", "first_tensor_s", "bytes", "agent_mib"].map(|field| number(row, field));
        println!("{:<34} {keys:>8.2} {first:>13.2} {:>8.2} {memory:>9.0}", text(row), bytes / 1e9);
    }
    println!(
        "MiB: most RssAnon + RssFile of the agent's processes, looked at every 20 ms; the weights (RssShmem) apart"
    );

    println!(
        "\n{:<34} {:>8} {:>9} {:>9} {:>12} {:>9}",
        "clients at once", "GB/s", "CPU s/GB", "host MiB", "host's peak", "agent MiB"
    );
    for row in rows(&measured["clients"]) {
        let [rate, cpu, host, peak, agent] =
            ["gb_s", "cpu_s_gb", "host_mib", "host_peak_mib", "agent_mib"].map(|field| number(row, field));
        println!("{:<34} {rate:>8.2} {cpu:>9.3} {host:>9.0} {peak:>12.0} {agent:>9.0}", row["clients"].to_string());
    }
    println!("host's peak: VmHWM, set back before; its sealed files are not mapped into it");

    if rows(&measured["sizes"]).next().is_some() {
        println!(
            "\n{:<34} {:>8} {:>15} {:>15} {:>10} {:>9}",
            "by size, s/GB", "seal", "gRPC (CPU)", "directory (CPU)", "agent MiB", "host MiB"
        );
    }
    for row in rows(&measured["sizes"]) {
        let pair = |what: &str| {
            let [wall, cpu] = ["s_gb", "cpu_s_gb"].map(|unit| number(row, &format!("load_{what}_{unit}")));
            format!("{wall:.2} ({cpu:.2})")
        };
        let [bytes, seal, agent, host] =
            ["bytes", "seal_s_gb", "agent_mib", "host_peak_mib"].map(|field| number(row, field));
        let name = format!("{:.2} GB", bytes / 1e9);
        println!("{name:<34} {seal:>8.2} {:>15} {:>15} {agent:>10.0} {host:>9.0}", pair("grpc"), pair("directory"));
    }
    for left_out in rows(&measured["left_out"]) {
        println!("left out: {}", left_out.as_str().unwrap_or("?"));
    }
    println!("\nratios");
    for (name, ratio) in measured["ratios"].as_object().into_iter().flatten() {
        println!("  {name:<34} {:>8.2}", ratio.as_f64().unwrap_or(f64::NAN));
    }
}

pub(super) fn rows(rows: &Value) -> impl Iterator<Item = &Value> {
    rows.as_array().into_iter().flatten()
}

pub(super) fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or(f64::NAN)
}

pub(super) fn text(row: &Value) -> &str {
    row["what"].as_str().unwrap_or("?")
}
