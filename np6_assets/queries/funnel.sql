-- From sends to deliveries, impressions and hits, by notification.
-- Impressions are empty where there are none.
SELECT
    name,
    denominator(bounce_rate) AS sends,
    denominator(hit_rate) AS delivered,
    numerator(impression_rate) AS displayed,
    numerator(hit_rate) AS hit,
    1 - rate(bounce_rate) AS delivery_rate,
    rate(impression_rate) AS impression_rate,
    rate(hit_rate) AS hit_rate,
    is_provisional(bounce_rate) AS provisional
FROM cohorts
GROUP BY activation_id, name
ORDER BY sends DESC NULLS LAST, name;
