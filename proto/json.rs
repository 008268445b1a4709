//! The JSON form of the push API's messages, and its schema: attributes of the generated types.

use protox::prost_reflect::prost_types::FileDescriptorProto;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use tonic_prost_build::Builder;

/// The text form of a client's id, 16 bytes in base64.
const CLIENT: &str = "^[A-Za-z0-9_-]{21}[AQgw]$";
/// Close codes that applications may send.
const CODES: &str =
    r#"extend("anyOf" = [{"enum": [1000, 1001, 1008, 1011, 1012, 1013]}, {"minimum": 3000, "maximum": 4999}])"#;
/// A name of a group, or a uid. The limit is one of bytes, which no schema can say.
const NAME: &str = "length(min = 1, max = 255)";
/// Lists that have to be there, and maps.
const REQUIRED: [&str; 5] = [
    "JoinRequest.clients",
    "LeaveRequest.clients",
    "BindRequest.clients",
    "UnbindRequest.clients",
    "ReplaceSessionRequest.session",
];
/// Conditions over several fields.
const WHOLE: [(&str, &str); 3] = [
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

/// Gives the messages of a file the attributes that make JSON of them.
pub(crate) fn describe(mut builder: Builder, file: &FileDescriptorProto) -> Builder {
    for message in &file.message_type {
        let of_message = format!(".{}.{}", file.package(), message.name());
        let is_reply = message.name().ends_with("Reply") || message.name() == "Member";
        builder = builder.message_attribute(
            &of_message,
            match is_reply {
                true => "#[derive(serde::Serialize, schemars::JsonSchema)]",
                false => "#[derive(serde::Deserialize, schemars::JsonSchema)] #[serde(deny_unknown_fields)]",
            },
        );
        if let Some((_, condition)) = WHOLE.iter().find(|(name, _)| *name == message.name()) {
            builder = builder.message_attribute(&of_message, format!("#[schemars({condition})]"));
        }
        for field in &message.field {
            let name = format!("{}.{}", message.name(), field.name());
            let mut serde = Vec::<String>::new();
            let mut schemars = Vec::<String>::new();
            let is_list = field.label() == Label::Repeated && field.r#type() == Type::String;
            if !is_reply {
                let is_optional = field.proto3_optional();
                let may_be_left_out = is_optional
                    || field.label() == Label::Repeated
                    || field.r#type() == Type::Bool
                    || field.name() == "filter";
                if may_be_left_out && !REQUIRED.contains(&&*name) {
                    serde.push("default".into());
                }
                match field.r#type() {
                    Type::Bytes => {
                        serde.push(r#"deserialize_with = "crate::push::base64""#.into());
                        schemars.push(r#"with = "String", extend("contentEncoding" = "base64", "pattern" = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")"#.into());
                    }
                    Type::Message if field.label() != Label::Repeated => {
                        let of = field.type_name().rsplit('.').next().unwrap_or_default();
                        serde.push(r#"deserialize_with = "crate::push::object""#.into());
                        schemars.push(format!("with = \"{of}\""));
                    }
                    Type::String | Type::Uint32 if is_optional => {
                        let of = if field.r#type() == Type::String {
                            "String"
                        } else {
                            "u32"
                        };
                        serde.push(r#"deserialize_with = "crate::push::given""#.into());
                        schemars.push(format!("with = \"{of}\""));
                    }
                    _ => {}
                }
                let is_exception = ["except", "except_uids", "remove"].contains(&field.name());
                if is_list && !is_exception {
                    serde.push(r#"deserialize_with = "crate::push::some""#.into());
                    schemars.push("length(min = 1, max = 4096)".into());
                } else if is_list {
                    schemars.push("length(max = 4096)".into());
                }
                match field.name() {
                    "clients" | "except" => schemars.push(format!("inner(regex(pattern = {CLIENT:?}))")),
                    "client" => schemars.push(format!("extend(\"pattern\" = {CLIENT:?})")),
                    "uids" | "groups" | "except_uids" if is_list => schemars.push(format!("inner({NAME})")),
                    "uid" | "group" if field.r#type() == Type::String => schemars.push(NAME.into()),
                    "code" => schemars.push(CODES.into()),
                    "reason" => schemars.push("length(max = 123)".into()),
                    _ => {}
                }
            } else if field.r#type() == Type::Enum {
                serde.push(
                    r#"serialize_with = "crate::push::delivery", skip_serializing_if = "Option::is_none""#.into(),
                );
                schemars.push(r#"with = "Delivery""#.into());
            }
            let path = format!("{of_message}.{}", field.name());
            if !serde.is_empty() {
                builder = builder.field_attribute(&path, format!("#[serde({})]", serde.join(", ")));
            }
            if !schemars.is_empty() {
                builder = builder.field_attribute(&path, format!("#[schemars({})]", schemars.join(", ")));
            }
        }
    }
    for of_enum in &file.enum_type {
        let path = format!(".{}.{}", file.package(), of_enum.name());
        builder = builder.enum_attribute(
            path,
            "#[derive(serde::Serialize, schemars::JsonSchema)] #[serde(rename_all = \"snake_case\")]",
        );
    }
    builder
}
