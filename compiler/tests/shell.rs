//! Completions and manual pages have all commands and options, since they are made from them.

mod tiny;

use std::fs;
use std::process::Command;

use tempfile::TempDir;
use tiny::fireq;

fn printed(args: &[&str]) -> String {
    let output = fireq(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that help lists, without `help` itself.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    names.filter(|name| *name != "help").map(String::from).collect()
}

/// The long options of a command.
fn options(command: &str) -> Vec<String> {
    let help = printed(&[command, "--help"]);
    let first = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let long = line
            .strip_prefix("--")
            .or_else(|| line.split_once(", --").filter(|(s, _)| s.len() == 2).map(|x| x.1))?;
        long.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next()
    });
    first.map(String::from).collect()
}

#[test]
fn manual_pages_have_every_option_of_every_command() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("share/man1");
    printed(&["man", "-o", dir.to_str().unwrap()]);
    assert!(commands().len() > 10);
    for command in commands() {
        let page = fs::read_to_string(dir.join(format!("fireq-{command}.1"))).unwrap();
        for option in options(&command) {
            let name = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&name), "{command} --{option}");
        }
    }
    let front = fs::read_to_string(dir.join("fireq.1")).unwrap();
    assert_eq!(front, printed(&["man"]));
    assert!(front.contains("Exit status: 0"), "{front}");
}

#[test]
fn completions_have_every_option_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = printed(&["completions", shell]);
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
            for option in options(&command) {
                assert!(text.contains(&option), "{shell}: {command} --{option}");
            }
        }
    }
}

#[test]
fn bash_completes_a_command() {
    let temp = TempDir::new().unwrap();
    let file = temp.path().join("fireq");
    fs::write(&file, printed(&["completions", "bash"])).unwrap();
    let script =
        "source \"$1\"; COMP_WORDS=(fireq comp); COMP_CWORD=1; _fireq fireq comp fireq; echo ${COMPREPLY[@]}";
    let Ok(shell) = Command::new("bash").args(["-c", script, "bash"]).arg(file).output() else {
        eprintln!("skipped: completions in bash: there is no bash");
        return;
    };
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), "compile completions\n");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let temp = TempDir::new().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let failed = fireq(&["man", "-o", file.to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(1));
    let message = String::from_utf8(failed.stderr).unwrap();
    assert!(message.starts_with("error: cannot write to `") && message.contains("file`"), "{message}");
}
