-- Whether the file is whole: 'ok', or the first thing that is not. Reads all of it.
select quick_check from pragma_quick_check limit 1;
