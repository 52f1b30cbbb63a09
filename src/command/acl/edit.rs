//! `ACL SETUSER | DELUSER | LOAD | SAVE`

use crate::auth::{DEFAULT_USER, join_selectors};
use crate::command::{Args, CommandError, Context};
use crate::reply::Reply;

/// Changes a user, or creates it.
pub(super) fn set_user(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let rules = join_selectors(args.from(3)).map_err(|word| {
        let word = word.escape_ascii();
        CommandError::new(format!("ERR Unmatched parenthesis in acl selector starting at '{word}'."))
    })?;
    let changed = context.server.users.set(args.at(2), rules.iter().map(Vec::as_slice));
    let changed = changed.map_err(|refused| match refused {
        None => CommandError::fixed("ERR Usernames can't contain spaces or null characters"),
        Some((error, rule)) => {
            let rule = rule.escape_ascii();
            CommandError::new(format!("ERR Error in ACL SETUSER modifier '{rule}': {error}"))
        }
    })?;
    context.close_affected(&changed);
    Ok(Reply::OK)
}

/// Deletes users.
pub(super) fn del_user(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.from(2).any(|name| name == DEFAULT_USER.as_bytes()) {
        return Err(CommandError::fixed("ERR The 'default' user cannot be removed"));
    }
    let (deleted, changed) = context.server.users.delete(args.from(2));
    context.close_affected(&changed);
    Ok(Reply::count(deleted))
}

/// Reads the users file.
pub(super) fn load(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let users = &context.server.users;
    let changed = users.load(file(context)?);
    let changed = changed.map_err(|problem| {
        CommandError::new(format!("ERR {problem}. WARNING: ACL errors detected, no change to the previously active ACL rules was performed"))
    })?;
    context.close_affected(&changed);
    Ok(Reply::OK)
}

/// Writes the users file.
pub(super) fn save(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let saved = context.server.users.save(file(context)?);
    saved.map_err(|error| {
        tracing::warn!(%error, "the users file cannot be written");
        CommandError::fixed(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        )
    })?;
    Ok(Reply::OK)
}

fn file<'c>(context: &'c Context<'_>) -> Result<&'c str, CommandError> {
    context
        .server
        .users
        .file()
        .ok_or(CommandError::fixed("ERR This server is not configured to use a users file (--users)"))
}
