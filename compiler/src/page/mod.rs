//! Pages that are one file without a network: a frame, styles, a script and its data, whatever they show.

use serde_json::Value;

/// What a page is made of besides its data.
pub(crate) struct Parts {
    /// What the body holds before scripts run.
    pub body: &'static str,
    /// Styles, after those that all pages share.
    pub css: &'static str,
    /// The script, after the one that all pages share: it finds the data in `data`.
    pub js: &'static str,
}

/// A page with this title. Neither title nor data ever become markup.
pub(crate) fn page(parts: &Parts, title: &str, data: &Value) -> String {
    // In a script element only `<` could end it.
    let data = data.to_string().replace('<', "\\u003c");
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    include_str!("frame.html")
        .replace("<!-- body -->\n", parts.body)
        .replace("/* css */\n", &[include_str!("base.css"), parts.css].concat())
        .replace("/* js */\n", &[include_str!("base.js"), parts.js].concat())
        .replace("<!-- title -->", &title)
        .replace("<!-- data -->", &data)
}
