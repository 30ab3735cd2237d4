-- The moment before which a heartbeat is too old to tell of life, by the database's clock.
select replace(strftime('%Y-%m-%d %H:%M:%f', :now, '-' || value || ' seconds'), ' ', 'T') || 'Z'
from agent_coordination_config where key = 'stale_after';
