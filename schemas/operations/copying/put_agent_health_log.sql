-- Made by bin/generate: puts a row into agent_health_log, as it was taken; see bus/copying.py.
insert into agent_health_log (id, agent_id, health_status, cpu_usage, memory_usage, response_time, error_count, warning_count, timestamp, details) /*postgres overriding system value */ values (
  cast(:id as bigint),
  :agent_id,
  :health_status,
  cast(:cpu_usage as double precision),
  cast(:memory_usage as double precision),
  cast(:response_time as double precision),
  cast(:error_count as bigint),
  cast(:warning_count as bigint),
  strftime('%Y-%m-%d %H:%M:%f', :timestamp),
  :details);
