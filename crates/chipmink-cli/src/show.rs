//! `chipmink show`.

use crate::arguments::ShowArguments;
use crate::command::{Failure, version};
use crate::{atom, log, view};
use chipmink::{Description, Repository};
use chipmink_types::{Export, GlobalName, GridKind, LoadPlan, LoadPod, LoadRoot, RegionRecord, TimeId};
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn print(
    repository: &Repository,
    arguments: &ShowArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let time = version(repository, &arguments.version)?;
    match &arguments.name {
        Some(name) => print_variable(repository, time, name, arguments.common.json, out),
        None => print_version(repository, time, arguments.common.json, out),
    }
}

fn print_version(
    repository: &Repository,
    time: TimeId,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let version = repository.version(time)?;
    let variables = repository.describe(time)?;
    if is_json {
        let mut all = log::value(&version);
        all["variables"] = variables.iter().map(|(name, what)| variable(name, what)).collect();
        writeln!(out, "{all}")?;
        return Ok(());
    }
    writeln!(out, "version  {time} on {}", view::line(&version.ref_name))?;
    writeln!(out, "saved    {}", view::time(version.saved_at))?;
    writeln!(out, "commit   {}", version.commit)?;
    for parent in &version.parents {
        writeln!(out, "parent   {parent}")?;
    }
    if !version.author.is_empty() {
        writeln!(out, "author   {}", view::line(&version.author))?;
    }
    if !version.message.is_empty() {
        writeln!(out, "message  {}", view::line(&version.message))?;
    }
    for (name, figure) in &version.statistics {
        writeln!(out, "         {}: {}", view::line(name), view::line(figure))?;
    }
    if let Some(code) = &version.code {
        writeln!(out, "code")?;
        for line in code.lines() {
            writeln!(out, "    {}", view::line(line))?;
        }
    }
    let width = variables.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(40);
    writeln!(out, "{}", view::count(variables.len() as u64, "variable"))?;
    for (name, what) in &variables {
        writeln!(out, "    {:width$}  {}", view::line(name), describe(name, what))?;
    }
    Ok(())
}

fn describe(name: &str, what: &Description) -> String {
    match what {
        Description::Inline(value) => atom::text(value),
        Description::Named(global) => view::line(&global_text(global)),
        Description::Skipped(skipped) => {
            let text =
                format!("not saved: {} at {name}{}: {}", skipped.type_name, skipped.path, skipped.reason);
            view::line(&text)
        }
        Description::Objects { names, pods, pod_bytes, region_bytes, .. } => {
            let size = view::bytes(pod_bytes.saturating_add(*region_bytes));
            let others: Vec<&str> = names.iter().map(String::as_str).filter(|other| *other != name).collect();
            let shared = match others.is_empty() {
                true => String::new(),
                false => format!(", together with {}", view::line(&others.join(", "))),
            };
            format!("{} in {}{shared}", size, view::count(*pods, "pod"))
        }
    }
}

fn global_text(global: &GlobalName) -> String {
    match global.qualname.is_empty() {
        true => format!("module {}", global.module),
        false => format!("{}.{}", global.module, global.qualname),
    }
}

fn variable(name: &str, what: &Description) -> Value {
    let rest = match what {
        Description::Inline(value) => json!({ "kind": "atom", "value": atom::text(value) }),
        Description::Named(global) => {
            json!({ "kind": "named", "module": global.module, "qualname": global.qualname })
        }
        Description::Skipped(skipped) => json!({
            "kind": "skipped", "path": skipped.path, "type": skipped.type_name, "reason": skipped.reason,
        }),
        Description::Objects { covariable, names, pods, pod_bytes, region_bytes } => json!({
            "kind": "objects", "covariable": covariable.to_string(), "together": names, "pods": pods,
            "pod_bytes": pod_bytes, "buffer_bytes": region_bytes,
        }),
    };
    let mut all = json!({ "name": name });
    if let (Value::Object(all), Value::Object(rest)) = (&mut all, rest) {
        all.extend(rest);
    }
    all
}

fn print_variable(
    repository: &Repository,
    time: TimeId,
    name: &str,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let plan = repository.plan_only(time, &[name.to_owned()])?;
    let root = plan.variables.first().map(|variable| &variable.root);
    if is_json {
        let pods: Vec<Value> = plan.pods.iter().map(pod_value).collect();
        writeln!(out, "{}", json!({ "name": name, "root": root.map(root_value), "pods": pods }))?;
        return Ok(());
    }
    match root {
        Some(LoadRoot::Inline(value)) => writeln!(out, "{} is {}", view::line(name), atom::text(value))?,
        Some(LoadRoot::Named(global)) => {
            writeln!(out, "{} is {}", view::line(name), view::line(&global_text(global)))?;
        }
        Some(LoadRoot::Skipped(skipped)) => {
            writeln!(out, "{} was not saved: {}", view::line(name), view::line(&skipped.reason))?;
        }
        Some(LoadRoot::Pod(position, export)) => {
            let pods = view::count(plan.pods.len() as u64, "pod");
            writeln!(out, "{} is export {export} of pod {position}, one of {pods}", view::line(name))?;
        }
        None => {}
    }
    print_pods(&plan, out)?;
    Ok(())
}

fn print_pods(plan: &LoadPlan, out: &mut dyn Write) -> std::io::Result<()> {
    for (position, pod) in plan.pods.iter().enumerate() {
        writeln!(out, "{position:>6}  {}  {}", pod.digest, view::bytes(pod.byte_len))?;
        if !pod.dependencies.is_empty() {
            let pods: Vec<String> = pod.dependencies.iter().map(ToString::to_string).collect();
            writeln!(out, "        refers to pods {}", pods.join(", "))?;
        }
        for global in &pod.globals {
            writeln!(out, "        names {}", view::line(&global_text(global)))?;
        }
        for region in &pod.regions {
            writeln!(out, "        buffer {}  {}", region.root, view::bytes(region.byte_len))?;
        }
    }
    Ok(())
}

fn root_value(root: &LoadRoot) -> Value {
    match root {
        LoadRoot::Inline(value) => json!({ "kind": "atom", "value": atom::text(value) }),
        LoadRoot::Named(global) => {
            json!({ "kind": "named", "module": global.module, "qualname": global.qualname })
        }
        LoadRoot::Pod(position, export) => json!({ "kind": "pod", "pod": position, "export": export }),
        LoadRoot::Skipped(skipped) => json!({
            "kind": "skipped", "path": skipped.path, "type": skipped.type_name, "reason": skipped.reason,
        }),
    }
}

fn pod_value(pod: &LoadPod) -> Value {
    let export = |export: &Export| match export {
        Export::Vacant => Value::Null,
        Export::Root(root) => json!({ "root": root }),
        Export::Memo(number) => json!({ "memo": number }),
    };
    json!({
        "digest": pod.digest.to_string(),
        "byte_len": pod.byte_len,
        "exports": pod.exports.iter().map(export).collect::<Vec<_>>(),
        "dependencies": pod.dependencies,
        "globals": pod.globals.iter().map(global_text).collect::<Vec<_>>(),
        "buffers": pod.regions.iter().map(region_value).collect::<Vec<_>>(),
    })
}

fn region_value(region: &RegionRecord) -> Value {
    let grid = match region.grid {
        GridKind::Run => "run",
        GridKind::Rows => "rows",
        GridKind::Shard => "shard",
    };
    json!({
        "digest": region.root.to_string(),
        "byte_len": region.byte_len,
        "grid": grid,
        "views": region.views.iter().map(|view| view.byte_offset).collect::<Vec<_>>(),
    })
}
