//! A real web server.

use std::fs;

use super::{Host, Lab, LabError, Process, iperf::listening};

/// An nginx with files of its own that serves one page on port 80, both families.
#[derive(Debug)]
pub struct WebServer {
    _process: Process,
}

impl WebServer {
    /// Starts it on a host and waits until it listens.
    ///
    /// # Errors
    /// When nginx does not start.
    pub fn start(lab: &Lab, host: &Host, page: &str) -> Result<Self, LabError> {
        let prefix = lab.directory().join(format!("nginx-{}", host.role()));
        let root = prefix.join("www");
        fs::create_dir_all(&root).map_err(LabError::io(format!("create {}", root.display())))?;
        let write = |name: &str, text: &str| {
            let path = prefix.join(name);
            fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))
        };
        write("www/index.html", page)?;
        // Enough to see many segments: a page of several hundred kilobytes.
        write("www/large.txt", &format!("{page}\n").repeat(400_000 / (page.len() + 1) + 1))?;
        let at = prefix.display();
        write(
            "nginx.conf",
            &format!(
                "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr warn;\nevents {{ worker_connections 256; }}\n\
                 http {{\n  access_log off;\n  client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  \
                 fastcgi_temp_path {at}/fastcgi;\n  uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n  \
                 server {{ listen 80; listen [::]:80; root {at}/www; }}\n}}\n"
            ),
        )?;
        let config = prefix.join("nginx.conf").display().to_string();
        let mut process =
            host.namespace().spawn("nginx", &["-p", &prefix.display().to_string(), "-e", "stderr", "-c", &config])?;
        listening(&mut process, 80)?;
        Ok(Self { _process: process })
    }
}
