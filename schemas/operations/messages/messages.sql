-- The newest :limit messages that match, newest first; a filter that is null lets everything pass. What expired while
-- nobody held it is dead, though no receiver has buried it yet; what was scheduled and is due is ready.
select record from message_records
where (:to is null or to_agent = :to) and (:from is null or from_agent = :from)
  and (:status is null or :status = case
    when expires_at <= :now and status in ('scheduled', 'ready') and leased_by is null then 'dead'
    when due_at <= :now and status = 'scheduled' then 'ready'
    else status end)
  and (:session is null or session_id = :session)
order by id desc limit :limit;
