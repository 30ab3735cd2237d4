-- The newest :limit messages that match, newest first; a filter that is null lets everything pass.
select record from message_records
where (:to is null or to_agent = :to) and (:from is null or from_agent = :from)
  and (:status is null or status = :status) and (:session is null or session_id = :session)
order by id desc limit :limit;
