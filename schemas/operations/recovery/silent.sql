-- The agents that have not ended and were not heard of for :silence seconds.
select record from agent_records
where status not in ('completed', 'failed', 'terminated')
  and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-' || :silence || ' seconds')
order by agent_id;
