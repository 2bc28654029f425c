use super::*;

fn group(text: &str) -> Group {
    text.parse().unwrap()
}

#[test]
fn layers_come_by_number_behind_files_and_what_has_none() {
    let groups = ["layer.10", "other", "header", "layer.2", "files", "layer.2.expert.11", "layer.2.expert.3", "other"];
    let groups = groups.map(group);
    let sorted = layers(groups.iter());
    let names: Vec<&str> = sorted.iter().map(Group::as_str).collect();
    assert_eq!(names, ["files", "other", "layer.2", "layer.2.expert.3", "layer.2.expert.11", "layer.10"]);
    assert_eq!(layers([group("header")].iter()), [group("header")]);
}
