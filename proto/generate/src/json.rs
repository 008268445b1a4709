//! The JSON form of the push API's messages, and the schema of that form: attributes for serde and schemars on the generated
//! types. The functions that they name are in `proto/src/push.rs`.

use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{FieldDescriptorProto, FileDescriptorProto};
use tonic_prost_build::Builder;

/// A pattern for the text form of a client's id: 16 bytes in base64.
const CLIENT_ID: &str = "^[A-Za-z0-9_-]{21}[AQgw]$";
/// The close codes that applications may send; see `codes::may_be_sent`.
const CLOSE_CODES: &str =
    r#"extend("anyOf" = [{"enum": [1000, 1001, 1008, 1011, 1012, 1013]}, {"minimum": 3000, "maximum": 4999}])"#;
/// The length of a group name or uid. The limit counts bytes, which a schema cannot express: it counts characters.
const NAME: &str = "length(min = 1, max = 255)";
/// Lists and maps that must not be left out.
const REQUIRED: [&str; 5] = [
    "JoinRequest.clients",
    "LeaveRequest.clients",
    "BindRequest.clients",
    "UnbindRequest.clients",
    "ReplaceSessionRequest.session",
];
/// Conditions over several fields of a message.
const CONDITIONS: [(&str, &str); 3] = [
    (
        "Target",
        r#"extend("oneOf" = [
            {"required": ["all"], "properties": {"all": {"const": true}}},
            {"required": ["clients"]}, {"required": ["uids"]}, {"required": ["groups"]}])"#,
    ),
    (
        "SendRequest",
        r#"extend("oneOf" = [{"required": ["text"]}, {"required": ["binary"]}],
            "if" = {"properties": {"confirm": {"const": true}}, "required": ["confirm"]},
            "then" = {"properties": {"to": {"required": ["clients"], "properties": {
                "clients": {"maxItems": 1}, "except": {"maxItems": 0}, "except_uids": {"maxItems": 0}}}}})"#,
    ),
    (
        "OnlineRequest",
        r#"extend("oneOf" = [{"required": ["client"]}, {"required": ["uid"]}])"#,
    ),
];

/// A pattern for base64 with padding, whose unused bits are zero.
const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
/// Lists that may be empty.
const MAY_BE_EMPTY: [&str; 3] = ["except", "except_uids", "remove"];

/// The attributes of one field.
#[derive(Default)]
struct Attributes {
    serde: Vec<String>,
    schemars: Vec<String>,
}

/// Adds the attributes to all messages and enums of a file.
pub(crate) fn describe(mut builder: Builder, file: &FileDescriptorProto) -> Builder {
    for message in &file.message_type {
        let path = format!(".{}.{}", file.package(), message.name());
        let is_reply = message.name().ends_with("Reply") || message.name() == "Member";
        let derived = match is_reply {
            true => "#[derive(serde::Serialize, schemars::JsonSchema)]",
            false => "#[derive(serde::Deserialize, schemars::JsonSchema)] #[serde(deny_unknown_fields)]",
        };
        builder = builder.message_attribute(&path, derived);
        if let Some((_, condition)) = CONDITIONS.iter().find(|(name, _)| *name == message.name()) {
            builder = builder.message_attribute(&path, format!("#[schemars({condition})]"));
        }
        for field in &message.field {
            let attributes = match is_reply {
                true => Attributes::of_reply(field),
                false => Attributes::of_request(message.name(), field),
            };
            builder = attributes.put(builder, &format!("{path}.{}", field.name()));
        }
    }
    for of_enum in &file.enum_type {
        let derived = "#[derive(serde::Serialize, schemars::JsonSchema)] #[serde(rename_all = \"snake_case\")]";
        builder = builder.enum_attribute(format!(".{}.{}", file.package(), of_enum.name()), derived);
    }
    builder
}

impl Attributes {
    fn of_request(message: &str, field: &FieldDescriptorProto) -> Self {
        let name = field.name();
        let is_many = field.label() == Label::Repeated;
        let may_be_left_out = is_many || field.proto3_optional() || field.r#type() == Type::Bool || name == "filter";
        let mut all = Self::default();
        if may_be_left_out && !REQUIRED.contains(&&*format!("{message}.{name}")) {
            all.serde.push("default".into());
        }
        match field.r#type() {
            Type::Bytes => {
                let pattern = format!("extend(\"contentEncoding\" = \"base64\", \"pattern\" = {BASE64:?})");
                all.read_with("base64", "String");
                all.schemars.push(pattern);
            }
            Type::Uint32 => {
                all.read_with("whole_number", "u32");
                all.schemars.push(CLOSE_CODES.into());
            }
            Type::String if field.proto3_optional() => all.read_with("not_null", "String"),
            Type::String if is_many => all.list(name),
            Type::Message if !is_many => {
                let of = field.type_name().rsplit('.').next().unwrap_or_default();
                all.read_with("object", of);
            }
            _ => {}
        }
        match name {
            "client" => all.schemars.push(format!("extend(\"pattern\" = {CLIENT_ID:?})")),
            "uid" | "group" if field.r#type() == Type::String => all.schemars.push(NAME.into()),
            "reason" => all.schemars.push("length(max = 123)".into()),
            _ => {}
        }
        all
    }

    fn of_reply(field: &FieldDescriptorProto) -> Self {
        let mut all = Self::default();
        if field.r#type() == Type::Enum {
            let written = r#"serialize_with = "crate::push::receipt", skip_serializing_if = "Option::is_none""#;
            all.serde.push(written.into());
            all.schemars.push(r#"with = "Receipt""#.into());
        }
        all
    }

    /// The field is read by a function of `proto/src/push.rs`, and has the schema of another type.
    fn read_with(&mut self, function: &str, of: &str) {
        self.serde
            .push(format!("deserialize_with = \"crate::push::{function}\""));
        self.schemars.push(format!("with = \"{of}\""));
    }

    fn list(&mut self, name: &str) {
        if MAY_BE_EMPTY.contains(&name) {
            self.schemars.push("length(max = 4096)".into());
        } else {
            self.serde.push(r#"deserialize_with = "crate::push::non_empty""#.into());
            self.schemars.push("length(min = 1, max = 4096)".into());
        }
        match name {
            "clients" | "except" => self.schemars.push(format!("inner(regex(pattern = {CLIENT_ID:?}))")),
            "uids" | "groups" | "except_uids" => self.schemars.push(format!("inner({NAME})")),
            _ => {}
        }
    }

    fn put(self, mut builder: Builder, path: &str) -> Builder {
        for (of, list) in [("serde", self.serde), ("schemars", self.schemars)] {
            if !list.is_empty() {
                builder = builder.field_attribute(path, format!("#[{of}({})]", list.join(", ")));
            }
        }
        builder
    }
}
