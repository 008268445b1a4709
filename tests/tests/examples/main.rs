//! The example programs, as their users meet them: with clients, in a browser, and by the newcomer's first command.

mod browser;
mod chat;
mod chat_robot;
mod logs;
mod monitor;
mod newcomer;
mod screenshots;
mod telnet;
mod web;
