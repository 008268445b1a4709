use super::*;
use serde::Deserialize;

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Listener {
    protocol: String,
    port: u16,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Section {
    children: usize,
    name: String,
    tags: Vec<String>,
    listen: Vec<Listener>,
}

impl Default for Section {
    fn default() -> Self {
        let ws = Listener {
            protocol: "ws".into(),
            port: 1,
        };
        Self {
            children: 2,
            name: String::new(),
            tags: vec!["a".into()],
            listen: vec![ws],
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Loose {
    children: usize,
}

fn with_env(text: &str, variables: &[(&str, &str)]) -> Config {
    let variables = variables
        .iter()
        .map(|(name, text)| (OsString::from(name), OsString::from(text)));
    let mut config = Config::read("test", None, "", variables).unwrap();
    config.layers.put(text, Source::File(Path::new("meepo.toml"))).unwrap();
    config
}

fn error<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn missing_keys_have_their_defaults() {
    let config = Config::parse("[gateway]\nchildren = 3").unwrap();
    assert_eq!(
        config.section::<Section>("gateway").unwrap(),
        Section {
            children: 3,
            ..Section::default()
        }
    );
    assert_eq!(config.section::<Section>("worker").unwrap(), Section::default());
}

#[test]
fn errors_name_file_line_and_key() {
    let read = |text: &str| error(Config::parse(text).and_then(|config| config.section::<Section>("gateway")));
    assert_eq!(
        read("[gateway]\n\nchildern = 3"),
        "meepo.toml:3: gateway.childern: unknown key, did you mean \"children\"?"
    );
    assert_eq!(
        read("[gateway]\nchildren = \"x\""),
        "meepo.toml:2: gateway.children: invalid type: string \"x\", expected usize"
    );
    assert_eq!(
        read("[gateway]\n[[gateway.listen]]\nprotocol = \"ws\"\n[[gateway.listen]]\nprotcol = \"line\""),
        "meepo.toml:5: gateway.listen[1].protcol: unknown key, did you mean \"protocol\"?"
    );
    assert_eq!(
        read("[gateway]\nlisten = [\n { port = 5 },\n { port = 70000 }\n]"),
        "meepo.toml:4: gateway.listen[1].port: invalid value: integer `70000`, expected u16"
    );
    assert!(
        read("[gateway]\nchildren = = 3").starts_with("meepo.toml:2: "),
        "{}",
        read("[gateway]\nchildren = = 3")
    );
    assert_eq!(
        read("gateway = 3"),
        "meepo.toml:1: gateway: must be a section, written as [gateway], and not integer"
    );
}

#[test]
fn keys_that_a_lenient_type_ignores_are_errors_too() {
    let config = Config::parse("[gateway]\nchildern = 3").unwrap();
    assert_eq!(
        error(config.section::<Loose>("gateway")),
        "meepo.toml:2: gateway.childern: unknown key, did you mean \"children\"?"
    );
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let text = error(Config::load(Some(Path::new("/nowhere/meepo.toml"))));
    assert!(text.starts_with("/nowhere/meepo.toml: cannot be read"), "{text}");
}

#[test]
fn sections_that_nobody_knows_are_errors() {
    let config = Config::parse("[gatway]\nchildren = 3").unwrap();
    assert_eq!(
        error(config.refuse_unknown_sections()),
        "meepo.toml:1: gatway: unknown section, did you mean \"gateway\"?"
    );
    let config = with_env("", &[("MEEPO_GATWAY__CHILDREN", "1")]);
    assert_eq!(
        error(config.refuse_unknown_sections()),
        "MEEPO_GATWAY__CHILDREN: gatway: unknown section, did you mean \"gateway\"?"
    );
    let config = Config::parse("[chat]\nchildren = 3").unwrap();
    config.section::<Loose>("chat").unwrap();
    assert_eq!(config.refuse_unknown_sections(), Ok(()));
}

#[test]
fn the_environment_overrides_and_is_typed_by_the_section() {
    let config = with_env(
        "[gateway]\nchildren = 3\nname = \"file\"",
        &[
            ("MEEPO_GATEWAY__CHILDREN", "4"),
            ("MEEPO_GATEWAY__NAME", "007"),
            ("MEEPO_GATEWAY__TAGS", "x, y"),
            ("MEEPO_GATEWAY__LISTEN__0__PORT", "99"),
            ("MEEPO_GATEWAY__LISTEN__1__PORT", "100"),
            ("MEEPO_GATEWAY_PORT", "tcp://10.0.0.1:1"),
            ("MEEPO_WORKER__CHILDREN", "9"),
        ],
    );
    let section = config.section::<Section>("gateway").unwrap();
    assert_eq!((section.children, section.name.as_str()), (4, "007"));
    assert_eq!(section.tags, ["x", "y"]);
    assert_eq!(
        section.listen[0],
        Listener {
            protocol: "ws".into(),
            port: 99
        }
    );
    assert_eq!(
        section.listen[1],
        Listener {
            protocol: String::new(),
            port: 100
        }
    );
}

#[test]
fn lists_in_the_environment_are_toml_or_words() {
    for text in ["[\"x\", \"y\"]", "x,y", " x , y "] {
        let config = with_env("", &[("MEEPO_GATEWAY__TAGS", text)]);
        assert_eq!(config.section::<Section>("gateway").unwrap().tags, ["x", "y"]);
    }
    let config = with_env("", &[("MEEPO_GATEWAY__TAGS", "")]);
    assert!(config.section::<Section>("gateway").unwrap().tags.is_empty());
    let config = with_env("", &[("MEEPO_GATEWAY__LISTEN", "[{ protocol = \"line\", port = 7 }]")]);
    assert_eq!(config.section::<Section>("gateway").unwrap().listen[0].port, 7);
}

#[test]
fn errors_name_the_variable() {
    let config = with_env("", &[("MEEPO_GATEWAY__CHILDREN", "many")]);
    assert_eq!(
        error(config.section::<Section>("gateway")),
        "MEEPO_GATEWAY__CHILDREN: gateway.children: invalid type: string \"many\", expected usize"
    );
    let config = with_env("[gateway]\nchildren = 3", &[("MEEPO_GATEWAY__CHILDERN", "4")]);
    assert_eq!(
        error(config.section::<Section>("gateway")),
        "MEEPO_GATEWAY__CHILDERN: gateway.childern: unknown key, did you mean \"children\"?"
    );
    let config = with_env("[gateway]\nchildren = 3", &[("MEEPO_GATEWAY__CHILDREN", "4")]);
    assert_eq!(
        config.invalid("gateway.children", "too many").to_string(),
        "MEEPO_GATEWAY__CHILDREN: gateway.children: too many"
    );
    let config = with_env("", &[("MEEPO_GATEWAY__LISTEN__7__PORT", "1")]);
    assert_eq!(
        error(config.section::<Section>("gateway")),
        "MEEPO_GATEWAY__LISTEN__7__PORT: the list has only 1 items"
    );
}

#[test]
fn a_reader_can_refuse_a_value_with_its_place() {
    let config = Config::parse("[gateway]\n\n[[gateway.listen]]\nport = 1").unwrap();
    assert_eq!(
        config.invalid("gateway.listen[0].port", "is taken").to_string(),
        "meepo.toml:4: gateway.listen[0].port: is taken"
    );
    assert_eq!(
        config.invalid("worker.children", "is 0").to_string(),
        "worker.children: is 0"
    );
}

#[test]
fn a_file_is_above_the_programs_defaults() {
    let mut config = Config::read("test", None, "[gateway]\nchildren = 7\nname = \"program\"", []).unwrap();
    config
        .layers
        .put("[gateway]\nchildren = 8", Source::File(Path::new("m.toml")))
        .unwrap();
    let section = config.section::<Section>("gateway").unwrap();
    assert_eq!((section.children, section.name.as_str()), (8, "program"));
}

#[test]
fn the_secret_can_come_from_a_file_and_is_masked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "hush\n").unwrap();
    let file = dir.path().join("meepo.toml");
    std::fs::write(&file, "[node]\nsecret_file = \"secret\"").unwrap();
    let node = Config::read("test", Some(&file), "", []).unwrap().node().unwrap();
    assert_eq!(node.secret, "hush");
    assert!(!format!("{node:?}").contains("hush"));
    assert!(!node.effective().to_string().contains("hush"));
    std::fs::write(&file, "[node]\nsecret_file = \"secret\"\nsecret = \"x\"").unwrap();
    let text = error(Config::read("test", Some(&file), "", []).unwrap().node());
    assert!(
        text.contains("meepo.toml:2: node.secret_file: cannot be set together with secret"),
        "{text}"
    );
}

#[test]
fn the_node_section_is_checked() {
    let node = |text: &str| error(Config::parse(text).unwrap().node());
    assert!(
        node("[node]\nregistry = [\"a:1\", \"nonsense\"]").starts_with("meepo.toml:2: node.registry[1]: \"nonsense\"")
    );
    assert!(node("[node]\nname = \"a/b\"").starts_with("meepo.toml:2: node.name: may have"));
    assert!(node("[node]\nlog_level = \"=,=\"").starts_with("meepo.toml:2: node.log_level: "));
    assert!(node("[node]\nstop_timeout = \"soon\"").starts_with("meepo.toml:2: node.stop_timeout: "));
    let long = format!("[node]\nrun_dir = \"/{}\"", "x".repeat(120));
    assert!(node(&long).contains("too long"));
}
