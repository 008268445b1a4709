<?php
// A chat room behind meepo-worker, in plain PHP:
//
//     MEEPO_SECRET=hush PHP_CLI_SERVER_WORKERS=4 php -S 127.0.0.1:8080 room.php

declare(strict_types=1);

// The greatest age of an event, in seconds: an older one may have been recorded and sent again by a stranger.
const MAX_AGE = 300;

/** Whether an event is signed with the secret, by the rules of Standard Webhooks, and its headers match the signed id. */
function is_signed(string $secret, string $body): bool
{
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6)) : $secret;
    $event = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $sent = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (!ctype_digit($sent) || abs(time() - (int) $sent) > MAX_AGE) {
        return false;
    }
    $right = 'v1,' . base64_encode(hash_hmac('sha256', "$event.$sent.$body", $key, true));
    // There are several signatures while the secret is being changed.
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $given) {
        if (hash_equals($right, $given)) {
            // Of the headers only the id is signed; it contains the client and the kind of the event.
            return ($_SERVER['HTTP_CE_ID'] ?? '') === $event && is_id_of($event);
        }
    }
    return false;
}

/** Whether an event's id matches the headers with its client and its kind. The id of a message ends with a number. */
function is_id_of(string $event): bool
{
    $client = $_SERVER['HTTP_CE_SUBJECT'] ?? '';
    if (!str_starts_with($event, "$client:")) {
        return false;
    }
    $tail = substr($event, strlen($client) + 1);
    return ($_SERVER['HTTP_CE_TYPE'] ?? '') === 'meepo.client.' . (ctype_digit($tail) ? 'message' : $tail);
}

/** Responds with a text, which is sent to the client or is the reason of its rejection, or with a list of commands. */
function answer(int $status, string|array $content): never
{
    http_response_code($status);
    header('Content-Type: ' . (is_array($content) ? 'application/json' : 'text/plain; charset=utf-8'));
    echo is_array($content) ? json_encode($content, JSON_THROW_ON_ERROR) : $content;
    exit;
}

function to_others(string $client, string $text): array
{
    return ['do' => 'send', 'to' => ['group' => 'lobby', 'except' => [$client]], 'text' => $text];
}

function opened(string $client, array $hello): never
{
    parse_str($hello['query'], $query);
    $name = $query['name'] ?? '';
    if (!is_string($name) || $name === '') {
        answer(400, 'who are you?');
    }
    answer(200, [
        ['do' => 'session', 'set' => ['name' => $name]],
        ['do' => 'join', 'group' => 'lobby'],
        to_others($client, "$name is here"),
        ['do' => 'send', 'text' => "hello $name"],
    ]);
}

function message(string $client, string $name, string $text): never
{
    if ($text === '/quit') {
        answer(200, [['do' => 'close', 'code' => 4000, 'reason' => "goodbye $name"]]);
    }
    if (str_starts_with($text, '/name ')) {
        $new = substr($text, 6);
        answer(200, [
            ['do' => 'session', 'set' => ['name' => $new]],
            ['do' => 'send', 'to' => ['group' => 'lobby'], 'text' => "$name is $new now"],
        ]);
    }
    answer(200, [to_others($client, "$name: $text")]);
}

// PHP's error messages must not reach clients, and once one is printed the status would be 200 instead of 500.
ini_set('display_errors', '0');

$body = file_get_contents('php://input');
$secret = getenv('MEEPO_SECRET') ?: '';
if ($secret !== '' && !is_signed($secret, $body)) {
    answer(401, 'the signature is wrong');
}

// $_SERVER['HTTP_CE_MEEPOREDELIVERED'] says that an event was delivered before, and may have been handled. If that matters to an
// application, it stores its responses in a database by the id of the event, $_SERVER['HTTP_CE_ID'], which is checked above.
$client = $_SERVER['HTTP_CE_SUBJECT'] ?? '';
$session = json_decode(rawurldecode($_SERVER['HTTP_CE_MEEPOSESSION'] ?? '{}'), true);
$name = $session['name'] ?? 'nobody';
$is_text = str_starts_with($_SERVER['CONTENT_TYPE'] ?? '', 'text/plain');

match ($_SERVER['HTTP_CE_TYPE'] ?? '') {
    'meepo.client.opened' => opened($client, json_decode($body, true)),
    'meepo.client.message' => $is_text ? message($client, $name, $body) : answer(200, 'text only, please'),
    'meepo.client.closed' => answer(200, [to_others($client, "$name has left")]),
    default => answer(204, ''),
};
