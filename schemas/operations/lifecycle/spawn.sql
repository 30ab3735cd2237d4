-- Put a process on record: it was spawned, at :at (null: now); returns the record's id.
insert into refusals select 'future_time' where :at > :now;

insert into agent_lifecycle (pid, agent_type, task_id, task_type, priority_number, spawned_at, command, worktree_path,
  metadata, registry_id, session_id, host, pid_namespace, process_started_at, boot_id, last_seen_at, traceparent)
values (:pid, :type, :task, :task_type, :priority, coalesce(:at, :now), :command, :worktree,
  :metadata, :agent, :session, :host, :pid_namespace, :process_started_at, :boot_id, coalesce(:at, :now), :traceparent)
returning agent_id;
