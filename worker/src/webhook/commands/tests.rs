//! Commands that are read, and what is said of wrong ones.

use meepo_proto::GatewayId;

use super::*;

fn error(body: &str) -> String {
    match read(body.as_bytes(), 1000) {
        Ok(commands) => panic!("{body} is taken for {commands:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_list_is_read_in_its_order() {
    let id = ClientId::new(GatewayId(1), 2);
    let body = format!(
        r#"[{{"do":"send","text":"a"}},
            {{"do":"send","to":{{"clients":["{id}"],"except_uids":["u"]}},"base64":"AP8="}},
            {{"do":"session","client":"{id}","replace":true,"set":{{"k":"v"}}}},
            {{"do":"close","to":{{"all":true,"except":["{id}"]}}}}]"#
    );
    let commands = read(body.as_bytes(), 1000).unwrap();
    let [
        Command::Send(Recipients::Own, text),
        Command::Send(
            Recipients::These {
                names: Names::Clients(clients),
                except_uids,
                ..
            },
            bytes,
        ),
        Command::Session(Some(whose), Change { replace: true, .. }),
        Command::Close(
            Recipients::These {
                names: Names::All,
                except,
                ..
            },
            1000,
            _,
        ),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!(text.text(), Some("a"));
    assert_eq!((bytes.is_text(), &bytes.bytes()[..]), (false, &[0, 255][..]));
    assert_eq!(
        (clients, except_uids, whose, except),
        (&vec![id], &vec!["u".to_owned()], &id, &vec![id])
    );
    assert!(read(b"[]", 1000).unwrap().is_empty());
    let most = format!(r#"[{{"do":"send","text":"{}"}}]"#, "x".repeat(1000));
    assert_eq!(read(most.as_bytes(), 1000).unwrap().len(), 1);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let long = "x".repeat(256);
    for (body, place, why) in [
        ("", "the answer", "not JSON"),
        ("{}", "the answer", "not a list"),
        ("[1]", "commands[0]", "not an object"),
        ("[{}]", "commands[0].do", "missing"),
        (r#"[{"do":5}]"#, "commands[0].do", "not text"),
        (r#"[{"do":"sned"}]"#, "commands[0].do", "\"sned\""),
        (r#"[{"do":"unbind"},{"do":"send"}]"#, "commands[1]", "neither"),
        (r#"[{"do":"send","text":"a","base64":""}]"#, "commands[0]", "both"),
        (r#"[{"do":"send","base64":"?"}]"#, "commands[0].base64", ""),
        (
            r#"[{"do":"send","text":"a","to":{"grup":"b"}}]"#,
            "commands[0].to.grup",
            "`grup`",
        ),
        (r#"[{"do":"send","text":5}]"#, "commands[0].text", "integer"),
        (
            &format!(r#"[{{"do":"unbind"}},{{"do":"send","text":"{}"}}]"#, "x".repeat(1001)),
            "commands[1].text",
            "1001 bytes",
        ),
        (
            &format!(r#"[{{"do":"send","base64":"{}"}}]"#, "AAAA".repeat(334)),
            "commands[0].base64",
            "limit of 1000",
        ),
        (
            r#"[{"do":"send","text":"a","to":{"group":"b","uid":"c"}}]"#,
            "commands[0].to",
            "more than one way",
        ),
        (
            r#"[{"do":"send","text":"a","to":{"except":[]},"x":1}]"#,
            "commands[0].x",
            "`x`",
        ),
        (
            r#"[{"do":"send","text":"a","to":{"except_uids":["a"]}}]"#,
            "commands[0].to",
            "nobody",
        ),
        (
            r#"[{"do":"send","text":"a","to":{"all":false}}]"#,
            "commands[0].to.all",
            "true",
        ),
        (
            r#"[{"do":"send","text":"a","to":{"clients":["x"]}}]"#,
            "commands[0].to.clients[0]",
            "22 characters",
        ),
        (r#"[{"do":"join","group":""}]"#, "commands[0].group", "0 bytes"),
        (r#"[{"do":"join"}]"#, "commands[0]", "`group`"),
        (r#"[{"do":"bind","uid":7}]"#, "commands[0].uid", "integer"),
        (
            r#"[{"do":"bind","client":"me","uid":"7"}]"#,
            "commands[0].client",
            "22 characters",
        ),
        (r#"[{"do":"session","set":{"a":1}}]"#, "commands[0].set.a", "integer"),
        (
            r#"[{"do":"session","replace":true,"remove":["a"]}]"#,
            "commands[0].remove",
            "no meaning",
        ),
        (r#"[{"do":"close","code":1006}]"#, "commands[0].code", "1006"),
        (r#"[{"do":"close","code":70000}]"#, "commands[0].code", "70000"),
        (
            &format!(r#"[{{"do":"close","reason":"{long}"}}]"#),
            "commands[0].reason",
            "123",
        ),
        (
            &format!(r#"[{{"do":"dissolve","group":"{long}"}}]"#),
            "commands[0].group",
            "256 bytes",
        ),
    ] {
        let error = error(body);
        assert!(
            error.starts_with(&format!("{place}: ")) && error.contains(why),
            "{body}: {error}"
        );
    }
}
