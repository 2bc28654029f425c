//! The report as one page: text and drawings of our own, nothing that is loaded from elsewhere, no script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::{AuditReport, LogReport, Sum};
use crate::print::{Plain, moment, size};
use crate::words::{tier_in_words, workload_in_words};

/// Bars of one drawing; what is beyond is summed up in words.
const BARS_MAX: usize = 40;
const WIDTH: f64 = 900.0;
const COLUMN_HEIGHT: f64 = 140.0;
const ROW_HEIGHT: f64 = 26.0;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:960px;margin:2em auto;\
padding:0 1em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #bbb}\
.verdict{padding:.6em 1em;border-left:.4em solid #1a1a1a;background:#f2f2f2;font-weight:600;overflow-wrap:anywhere}\
.bad{border-color:#a4001d;background:#fdecef}.good{border-color:#0b6b3a;background:#eaf6ef}\
li,p{overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;font-size:.85em}\
th,td{text-align:left;vertical-align:top;padding:.3em .6em .3em 0;border-bottom:1px solid #ddd}\
td:nth-child(-n+2),td:nth-child(4){white-space:nowrap}td:nth-child(5){overflow-wrap:anywhere;min-width:12em}\
.wide{overflow-x:auto}svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#1a1a1a}svg rect{fill:#2f5d8a}\
svg line{stroke:#888}code{font-size:.9em}@media print{body{margin:0;max-width:none}h2{break-after:avoid}svg{break-inside:avoid}}";

/// The page.
pub(super) fn page(report: &AuditReport) -> String {
    let mut page = Page(String::new());
    let class = if report.verdict().exit_code() == 0 { "verdict good" } else { "verdict bad" };
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Audit of a weight vault</title>");
    page.raw(&format!("<style>{STYLE}</style></head><body>\n<h1>Audit of a weight vault</h1>\n<p>"));
    page.text(&format!("Vault {}", report.vault));
    page.raw(&format!("</p>\n<p class=\"{class}\">"));
    page.text(&report.headline());
    page.raw("</p>\n");
    if let Some(log) = &report.log {
        page.log(log);
    }
    page.raw("</body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// Names of models and rules are chosen by others: nothing in them may become markup.
    fn text(&mut self, text: &str) {
        for char in Plain(text).to_string().chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                char => self.0.push(char),
            }
        }
    }

    fn heading(&mut self, title: &str) {
        self.raw("<h2>");
        self.text(title);
        self.raw("</h2>\n");
    }

    fn list(&mut self, title: &str, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        self.heading(title);
        self.raw("<ul>");
        for line in lines {
            self.raw("<li>");
            self.text(line);
            self.raw("</li>\n");
        }
        self.raw("</ul>\n");
    }

    fn log(&mut self, log: &LogReport) {
        self.list("What was checked", &log.checked());
        self.list("What is wrong or missing", &log.wrong());
        self.list(&format!("Who could cause a release, at {}", moment(log.today.at)), &log.today.says);
        self.list("What in the policy in force deserves a second look", log.warnings());
        self.list("What stands out", &log.stands_out);
        self.list("First releases", &log.first_releases());
        let released = &log.released;
        if released.total.releases == 0 {
            self.heading("Released");
            self.raw("<p>Nothing was released.</p>\n");
        } else {
            self.columns("Releases by day (UTC)", &released.by_day, |sum| sum.releases, |count| count.to_string());
            self.columns("Bytes released by day (UTC)", &released.by_day, |sum| sum.bytes, size);
            self.bars("Releases by model", &released.by_model);
            self.bars("Releases by platform", &released.by_platform);
            self.bars("Releases by code that ran in the guest", &released.by_code);
            self.bars("Releases by program that the guest said it starts", &released.by_program);
            self.releases(log);
        }
        let denied: Vec<String> = log.denied.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        self.list("Refused, by code", &denied);
    }

    fn releases(&mut self, log: &LogReport) {
        self.heading("The newest releases");
        self.raw(
            "<div class=\"wide\"><table><thead><tr><th>Entry</th><th>Time</th><th>Model</th><th>Size</th><th>Platform</th><th>Rule</th>",
        );
        self.raw("<th>Tier</th><th>Starts</th></tr></thead><tbody>\n");
        for release in log.released.newest.iter().rev().take(100) {
            let cells = [
                release.index.to_string(),
                moment(release.time),
                release.model.clone(),
                size(release.bytes),
                release.platform.to_string(),
                release.rule.clone(),
                tier_in_words(release.tier)
                    .split(['.', ':', ';', '('])
                    .next()
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned(),
                release.workload.map_or_else(|| "not asked".to_owned(), |workload| workload_in_words(&workload)),
            ];
            self.raw("<tr>");
            for cell in cells {
                self.raw("<td>");
                self.text(&cell);
                self.raw("</td>");
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody></table></div>\n");
    }

    /// A column for each key, the newest last. Each has its value over it, so that no colour is needed.
    fn columns(
        &mut self,
        title: &str,
        by_day: &BTreeMap<String, Sum>,
        value: fn(&Sum) -> u64,
        show: impl Fn(u64) -> String,
    ) {
        self.heading(title);
        let shown: Vec<(&String, u64)> =
            by_day.iter().rev().take(BARS_MAX).map(|(day, sum)| (day, value(sum))).collect();
        let (most, count) = (shown.iter().map(|(_, value)| *value).max().unwrap_or(1).max(1), shown.len().max(1));
        let slot = (WIDTH / count as f64).min(120.0);
        // Labels of slim columns would cover each other.
        let step = (90.0 / slot).ceil() as usize;
        self.open_svg(title, COLUMN_HEIGHT + 50.0);
        for (place, (day, value)) in shown.iter().rev().enumerate() {
            let height = COLUMN_HEIGHT * *value as f64 / most as f64;
            let (x, top) = (place as f64 * slot, 20.0 + COLUMN_HEIGHT - height);
            self.rect((x + slot * 0.1, top), (slot * 0.8, height));
            if place % step == 0 {
                self.label((x + slot * 0.1, top - 5.0), &show(*value));
                self.label((x + slot * 0.1, COLUMN_HEIGHT + 38.0), day);
            }
        }
        let _ = write!(self.0, "<line x1=\"0\" y1=\"{0}\" x2=\"{WIDTH}\" y2=\"{0}\"/>", 20.0 + COLUMN_HEIGHT);
        self.raw("</svg>\n");
        self.left_out(by_day.len(), "days");
    }

    /// A row for each key, the largest first.
    fn bars(&mut self, title: &str, sums: &BTreeMap<String, Sum>) {
        if sums.is_empty() {
            return;
        }
        self.heading(title);
        let mut rows: Vec<(&String, &Sum)> = sums.iter().collect();
        rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.releases));
        rows.truncate(BARS_MAX);
        let most = rows.first().map_or(1, |(_, sum)| sum.releases).max(1);
        self.open_svg(title, rows.len() as f64 * ROW_HEIGHT * 2.0);
        for (place, (name, sum)) in rows.iter().enumerate() {
            let y = place as f64 * ROW_HEIGHT * 2.0;
            let width = (WIDTH - 200.0) * sum.releases as f64 / most as f64;
            self.label((0.0, y + 16.0), name);
            self.rect((0.0, y + 23.0), (width.max(2.0), 16.0));
            self.label((width.max(2.0) + 8.0, y + 36.0), &format!("{}, {}", sum.releases, size(sum.bytes)));
        }
        self.raw("</svg>\n");
        self.left_out(sums.len(), "rows");
    }

    fn open_svg(&mut self, title: &str, height: f64) {
        let _ = write!(self.0, "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"");
        self.text(title);
        self.raw("\">");
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let _ = write!(self.0, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>");
    }

    fn label(&mut self, (x, y): (f64, f64), text: &str) {
        let _ = write!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\">");
        self.text(text);
        self.raw("</text>");
    }

    fn left_out(&mut self, all: usize, what: &str) {
        if all > BARS_MAX {
            let _ = writeln!(self.0, "<p>{} more {what} are in the report as JSON.</p>", all - BARS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use attestation::Sha256Digest;
    use ledger::checkpoint::Checkpoint;
    use ledger::entry::Entry;
    use ledger::merkle::{Tree, leaf_hash};

    use super::*;
    use crate::audit::LogReader;
    use crate::bundle::Index;
    use crate::commands::audit::tally::Tally;
    use crate::commands::audit::verify::Borne;

    #[test]
    fn names_of_strangers_become_no_markup() {
        let mut page = Page(String::new());
        page.list("<b>", &["<script>alert('1')</script>&\"\u{202e}".to_owned()]);
        assert!(!page.0.contains("<script") && !page.0.contains("<b>"), "{}", page.0);
        assert!(page.0.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;\\u{202e}"), "{}", page.0);
    }

    /// Of a recorded log, such as the one that has every type of entry; its evidence is not at hand.
    fn page_of(recorded: &str) -> String {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../ledger/tests/governance/data/");
        let recorded = std::fs::read_to_string(data.to_owned() + recorded).unwrap();
        let vault = Sha256Digest::of(recorded.lines().next().unwrap().as_bytes());
        let (mut reader, mut tree) = (LogReader::new(vault), Tree::new());
        let mut tally = Tally::new(Index::new(vault, recorded.lines().count() as u64, (0, 0)));
        for (index, entry) in (0..).zip(recorded.lines().map(str::as_bytes)) {
            let parsed = Entry::parse(entry).unwrap();
            tally.entry(index, &parsed, reader.state());
            if let Entry::Release(release) = &parsed {
                tally.evidence(index, true, Borne::Missing(vec![release.evidence, release.binding]));
            }
            reader.push(entry).unwrap();
            tree.push(leaf_hash(entry));
        }
        let (size, now) = (tree.len(), reader.state().time());
        let checkpoint = Checkpoint { size, root: tree.root(size).unwrap() };
        page(&tally.finish(&reader.finish(checkpoint).unwrap(), None, now))
    }

    #[test]
    fn every_kind_of_act_has_its_line_on_the_page() {
        let page = page_of("fold.jsonl");
        for part in [
            "standing approval for at most 100 releases of minilm",
            "BREAK-GLASS for at most 1 releases of minilm",
            "the raise of budget b counts",
            "CLOCK WAS SET AHEAD",
            "ALARM: a (",
            "is taken from here on",
            "revoke group layer.9",
            "the keeper is sealed to another boot state too",
            "another keeper may take over",
            "the keeper retires",
            "the vault&#39;s keys were split into 3 shares",
            "is lost, and",
            "the keeper runs version 0.2.0",
            "and before version 0.1.0",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let shared = page_of("fold-shared.jsonl");
        for part in ["another keeper decides beside the others from here on", "decides no more"] {
            assert!(shared.contains(part), "{part}: {shared}");
        }
    }

    /// `cargo test -p vaultctl -- --ignored the_page_is_looked_at`, and then a browser.
    #[test]
    #[ignore = "writes a page for a person to look at"]
    fn the_page_is_looked_at() {
        let file = std::env::temp_dir().join("weightvault-audit.html");
        std::fs::write(&file, page_of("fold.jsonl")).unwrap();
        println!("{}", file.display());
    }

    #[test]
    fn a_year_of_days_fits_on_the_page() {
        let mut page = Page(String::new());
        let days: BTreeMap<String, Sum> =
            (0..365_u64).map(|day| (format!("{day:03}"), Sum { releases: day, bytes: day << 30 })).collect();
        page.columns("Releases", &days, |sum| sum.releases, |count| count.to_string());
        assert_eq!(page.0.matches("<rect").count(), BARS_MAX);
        assert!(page.0.contains("325 more days"), "{}", page.0);
        // The highest column is as high as there is room.
        assert!(page.0.contains(&format!("height=\"{COLUMN_HEIGHT:.1}\"")), "{}", page.0);
    }
}
