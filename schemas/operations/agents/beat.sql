-- An agent is at work: its heartbeat, written when the last one is five seconds old.
update agent_registry set last_heartbeat = :now
where agent_id = :agent and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
