-- A later file tells how an imported agent ended.
update agent_lifecycle set
  status = :status, completed_at = :completed_at, unseen = 0, error_message = null,
  last_seen_at = coalesce(:completed_at, last_seen_at), metadata = coalesce(:metadata, metadata)
where origin = 'imported' and pid = :pid and started_at = :started_at;
