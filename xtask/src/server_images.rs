//! The images of servers that pods of tests run: Kafka, which takes the settings of the image apache/kafka, and
//! versitygw. They contain the programs that tests without a cluster run too.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::sha256;
use crate::node_images::{copy, fill_with_busybox};
use crate::project::Project;
use crate::system::{self, Need};
use crate::{archive, process};

const KAFKA_ROOT: &str = "testbed/images/kafka-root.sh";
const KAFKA_RUN: &str = "testbed/images/kafka-run.sh";

/// Makes them, unless they exist, of Kafka's jars and the program versitygw, and returns their directory: `kafka.tar` and
/// `versitygw.tar`.
///
/// The testbed uses the same names, `separation.test/kafka` and `separation.test/versitygw`, with the version as tag.
pub(crate) fn install(project: &Project, version: &str, jars: &Path, versitygw: &Path) -> Result<PathBuf> {
    let scripts = [KAFKA_ROOT, KAFKA_RUN].map(|script| project.path(script));
    let mut parts = format!("{} {}", jars.display(), versitygw.display());
    for script in &scripts {
        let text = fs::read_to_string(script);
        parts += &text.with_context(|| format!("cannot read {}", script.display()))?;
    }
    let [root_script, run_script] = &scripts;
    let cached = format!("server-images/{version}");
    project
        .cache()
        .install(&cached, &sha256(parts.as_bytes()), |filling| {
            system::ensure(&[Need::Java, Need::Busybox])?;
            let name = |image: &str| format!("separation.test/{image}:{version}");
            let root = tempfile::tempdir_in(filling)?;
            fill_with_busybox(project, root.path())?;
            let mut adding = project.command("sh");
            adding.arg(root_script).arg(root.path()).arg(jars).arg(run_script);
            process::run(&mut adding)?;
            let packed = filling.join("kafka.tar");
            let program = ["/etc/kafka/docker/run"];
            archive::write(project, root.path(), &name("kafka"), &program, &packed)?;
            let root = tempfile::tempdir_in(filling)?;
            copy(versitygw, &root.path().join("versitygw"))?;
            let packed = filling.join("versitygw.tar");
            archive::write(project, root.path(), &name("versitygw"), &["/versitygw"], &packed)
        })
}
