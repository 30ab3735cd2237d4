-- How many pages of the file hold nothing.
select freelist_count from pragma_freelist_count;
