-- The payloads that carry a digest, with it, to be compared: by the doctor, who has time.
select id, iif(json_valid(payload), json(payload), ''), digest from agent_messages where digest is not null order by id;
