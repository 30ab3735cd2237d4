-- Sessions that failed more than :age seconds ago are abandoned; nothing is deleted. Returns their ids.
update coordination_sessions set status = 'abandoned'
where status = 'failed' and coalesce(completed_at, last_activity)
  < strftime('%Y-%m-%d %H:%M:%f', :now, '-' || :age || ' seconds')
returning session_id;
