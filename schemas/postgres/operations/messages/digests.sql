-- Differs: PostgreSQL holds no payload that is not JSON.
select id, payload::text, digest from agent_messages where digest is not null order by id;
