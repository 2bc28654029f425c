//! A measurement of the data path as one picture that needs nothing else: SVG. It is readable on a light and a dark page.

use super::show::{number, rows, text};
use crate::Result;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
const ROW: f64 = 22.0;
/// Where the names of bars end and the bars begin.
const NAMES: f64 = 250.0;
/// Where the bars of rates end, and where those of CPU begin and end.
const RATES_END: f64 = 600.0;
const CPU: f64 = 690.0;
const CPU_END: f64 = 890.0;

/// Writes it.
pub(super) fn write(measured: &Value, profile: &str, file: &Path) -> Result<()> {
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir)?;
    }
    Ok(fs::write(file, svg(measured, profile)).map_err(|error| format!("{}: {error}", file.display()))?)
}

fn svg(measured: &Value, profile: &str) -> String {
    let mut picture = Picture { body: String::new(), y: 2.0 * MARGIN };
    let title = format!(
        "Seal and load of {:.2} GB, medians of {} rounds, {profile} build",
        number(measured, "bytes") / 1e9,
        measured["runs"]
    );
    picture.text(MARGIN, "title", &title);
    picture.y += ROW;
    picture.bars(measured);
    picture.loads(measured);
    picture.clients(measured);
    picture.sizes(measured);
    let height = picture.y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{}</svg>\n",
        picture.body
    )
}

const STYLE: &str = ".page{fill:#fff}text{fill:#222}.title{font-size:17px;font-weight:bold}.head{font-weight:bold}.note{fill:#666}\
    .ours{fill:#2f6fb3}.bound{fill:#9aa5b1}.peer{fill:#c98a3a}.spread{stroke:#222;stroke-width:1.5}.axis{stroke:#ccc}\
    @media(prefers-color-scheme:dark){.page{fill:#161b22}text{fill:#ddd}.note{fill:#999}.spread{stroke:#ddd}.axis{stroke:#444}}";

struct Picture {
    body: String,
    /// Where the next line stands.
    y: f64,
}

impl Picture {
    fn text(&mut self, x: f64, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(&format!("<text x=\"{x:.1}\" y=\"{:.1}\" class=\"{class}\">{text}</text>", self.y));
    }

    fn bar(&mut self, x: f64, width: f64, class: &str) {
        let y = self.y - 12.0;
        self.add(&format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"15\" class=\"{class}\"/>"));
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], class: &str) {
        self.add(&format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"));
    }

    fn add(&mut self, element: &str) {
        // A string takes what it is given.
        let _ = writeln!(self.body, "{element}");
    }

    fn head(&mut self, heads: &[(f64, &str)]) {
        self.y += ROW;
        for (x, head) in heads {
            self.text(*x, "head", head);
        }
        self.y += ROW;
    }

    /// Rates with their spread, and CPU, of every row.
    fn bars(&mut self, measured: &Value) {
        let most =
            |field: &str| rows(&measured["rows"]).map(|row| number(row, field)).fold(f64::MIN_POSITIVE, f64::max);
        let (fastest, dearest) = (most("most"), most("cpu_s_gb"));
        self.head(&[(MARGIN, "what"), (NAMES, "GB/s: median, least and most"), (CPU, "CPU s/GB, all processes")]);
        for row in rows(&measured["rows"]) {
            let (class, at) = (kind(text(row)), |rate: f64| rate / fastest * (RATES_END - NAMES));
            let [rate, least, most, cpu] = ["gb_s", "least", "most", "cpu_s_gb"].map(|field| number(row, field));
            self.text(MARGIN, "", text(row));
            self.bar(NAMES, at(rate), class);
            let middle = self.y - 4.5;
            self.line([NAMES + at(least), middle, NAMES + at(most), middle], "spread");
            self.text(NAMES + at(most) + 6.0, "", &format!("{rate:.2}"));
            let width = cpu / dearest * (CPU_END - CPU);
            self.bar(CPU, width, class);
            self.text(CPU + width + 6.0, "", &format!("{cpu:.2}"));
            self.y += ROW;
        }
        let legend = [("bound", "what bounds it"), ("ours", "ours"), ("peer", "what people use instead")];
        for (index, (class, what)) in legend.into_iter().enumerate() {
            let x = NAMES + 160.0 * index as f64;
            self.bar(x, 12.0, class);
            self.text(x + 18.0, "note", what);
        }
        self.y += ROW;
    }

    /// How long a cold start takes, to the keys and to the first tensor.
    fn loads(&mut self, measured: &Value) {
        let loads: Vec<&Value> = rows(&measured["rows"]).filter(|row| row.get("keys_s").is_some()).collect();
        let longest = loads.iter().map(|row| number(row, "first_tensor_s")).fold(f64::MIN_POSITIVE, f64::max);
        self.head(&[
            (MARGIN, "cold start"),
            (NAMES, "seconds to the keys (grey), to the first tensor"),
            (CPU, "agent MiB, weights apart"),
        ]);
        for row in loads {
            let at = |seconds: f64| seconds / longest * (RATES_END - NAMES);
            let [keys, first, memory] = ["keys_s", "first_tensor_s", "agent_mib"].map(|field| number(row, field));
            self.text(MARGIN, "", text(row));
            self.bar(NAMES, at(first), "ours");
            self.bar(NAMES, at(keys), "bound");
            self.text(NAMES + at(first) + 6.0, "", &format!("{first:.2}"));
            self.text(CPU, "", &format!("{memory:.0}"));
            self.y += ROW;
        }
    }

    fn clients(&mut self, measured: &Value) {
        let most = rows(&measured["clients"]).map(|row| number(row, "gb_s")).fold(f64::MIN_POSITIVE, f64::max);
        self.head(&[(MARGIN, "clients at once"), (NAMES, "GB/s, all together"), (CPU, "host's peak MiB; CPU s/GB")]);
        for row in rows(&measured["clients"]) {
            let (rate, width) = (number(row, "gb_s"), number(row, "gb_s") / most * (RATES_END - NAMES));
            self.text(MARGIN, "", &row["clients"].to_string());
            self.bar(NAMES, width, "ours");
            self.text(NAMES + width + 6.0, "", &format!("{rate:.2}"));
            self.text(CPU, "", &format!("{:.0}; {:.2}", number(row, "host_peak_mib"), number(row, "cpu_s_gb")));
            self.y += ROW;
        }
    }

    /// What a GB costs, by the size of the model: bars of one length say that cost is linear.
    fn sizes(&mut self, measured: &Value) {
        let sizes: Vec<&Value> = rows(&measured["sizes"]).collect();
        if sizes.is_empty() {
            return;
        }
        let most = sizes.iter().map(|row| number(row, "load_grpc_s_gb")).fold(f64::MIN_POSITIVE, f64::max);
        self.head(&[(MARGIN, "by size of the model"), (NAMES, "load over gRPC, s/GB"), (CPU, "agent, host MiB")]);
        for row in sizes {
            let cost = number(row, "load_grpc_s_gb");
            let width = cost / most * (RATES_END - NAMES);
            self.text(MARGIN, "", &format!("{:.2} GB", number(row, "bytes") / 1e9));
            self.bar(NAMES, width, "ours");
            self.text(NAMES + width + 6.0, "", &format!("{cost:.2}"));
            self.text(CPU, "", &format!("{:.0}, {:.0}", number(row, "agent_mib"), number(row, "host_peak_mib")));
            self.y += ROW;
        }
    }
}

/// Ours, what bounds it, or what is used instead.
fn kind(what: &str) -> &'static str {
    match what {
        what if super::peers::ALL.iter().any(|peer| peer.what == what) => "peer",
        what if what.starts_with("load") || what == "seal" => "ours",
        _ => "bound",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_is_in_the_picture_and_nothing_is_without_a_number() {
        let measured = json!({
            "bytes": 1e9, "runs": 3,
            "rows": [
                { "what": "bare loop", "gb_s": 7.0, "least": 6.0, "most": 8.0, "cpu_s_gb": 0.2 },
                { "what": "load over gRPC", "gb_s": 3.0, "least": 2.0, "most": 4.0, "cpu_s_gb": 0.6,
                  "bytes": 1e9, "keys_s": 0.2, "first_tensor_s": 0.5, "agent_mib": 40.0 },
            ],
            "clients": [{ "clients": 8, "gb_s": 3.5, "cpu_s_gb": 0.7, "host_peak_mib": 60.0 }],
            "sizes": [{ "bytes": 1e9, "load_grpc_s_gb": 0.4, "agent_mib": 40.0, "host_peak_mib": 50.0 }],
        });
        let svg = svg(&measured, "release");
        for text in ["bare loop", "load over gRPC", "clients at once", "1.00 GB", "class=\"bound\"", "class=\"ours\""] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }

    #[test]
    fn what_is_ours_and_what_is_not() {
        assert_eq!(["seal", "bare seal loop", "load from s3", "age"].map(kind), ["ours", "bound", "ours", "peer"]);
    }
}
