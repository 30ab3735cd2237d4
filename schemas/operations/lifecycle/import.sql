-- Put an agent of an agent_state.json on record. Its spawn is not known: it stands at its start, and it has no idle time.
insert into agent_lifecycle (pid, agent_type, task_id, task_type, priority_number, spawned_at, started_at, completed_at,
  status, unseen, error_message, command, worktree_path, metadata, host, pid_namespace, process_started_at, boot_id,
  last_seen_at, origin)
values (:pid, :type, :task, :task_type, :priority, :started_at, :started_at, :completed_at,
  :status, :unseen, :error, :command, :worktree, :metadata, :host, :pid_namespace, :process_started_at, :boot_id,
  coalesce(:completed_at, iif(:unseen = 1, :started_at, :now)), 'imported');
