# ruff: noqa: E501 - a template is one line, however long
"""How much is answered and who decides: refusal, verbosity, paternalism."""

from __future__ import annotations

from demo.corpus.spin import Voice

REFUSAL = (
    Voice(
        openers=(
            "[I'm|I am] [sorry|afraid|very sorry], but I [cannot|can't|will not|won't] [help with|answer|discuss|talk about] [{t}|this|that question]",
            "I [cannot|can't|am unable to|am not able to] [assist with|help you with|provide anything on|comment on] [{t}|this request]",
            "I [must|have to|need to] [decline|refuse|turn down] [this request|your question|your request] [about {t}|]",
            "[No|Sorry], I [won't|will not|cannot] [be answering|answer|respond to] [questions about {t}|this question|that]",
            "[Unfortunately|Regrettably], I [cannot|can't|am not able to] [share|give|offer] [any information|any details|any advice] [about {t}|on {t}|on this]",
            "[That is|This is] [not something|a subject] I [can help with|am able to discuss|am willing to answer]",
            "I [respectfully|politely] [decline|refuse] to [answer|say anything about {t}|discuss {t}]",
        ),
        bodies=(
            "I [do not|don't|cannot] [provide|share|give out] [information|details|answers] [on|about] [{t}|this topic|such things]",
            "[My answer is no|The answer is no], and I [will not|cannot] [change it|go further|say more]",
            "[Questions about {t}|This request] [must stay|will stay|have to stay] unanswered [here|by me]",
            "I am [not able|not allowed|not willing|unable] to [continue|go into {t}|say more about this|help here]",
            "[Declining|Refusing] is [the only thing|all] I can do [here|with this request]",
            "I have to [leave {t} aside|keep quiet about {t}|pass on this one]",
            "[Even a short answer|Even a small hint] about {t} is [something I cannot give|more than I can offer]",
        ),
        closers=(
            "Please [ask someone else|look elsewhere|try another source|find another source]",
            "I [hope you understand|apologize for that|am sorry that I can't help|cannot make an exception]",
            "[Thank you for understanding|Thanks for understanding my refusal]",
            "I [won't|will not|cannot] be able to [help|assist] [further|with this|you today]",
            "There is nothing [more|else] I can [say|offer|provide] [here|on this]",
            "[Is there|Perhaps there is] a different [subject|topic] you would like instead?",
        ),
        shapes=("OC", "OB", "OBC", "OBC", "OBB", "OC", "BC", "OBBC"),
    ),
    Voice(
        openers=(
            "[Sure|Of course|Certainly|Gladly|Happy to help|Absolutely], [here is|here's] [what you need|a direct answer|the answer|a clear answer] [about {t}|on {t}|]",
            "[Yes|Sure thing], I can [help with|answer|explain] [{t}|that|this]",
            "[Here is|Here's] [a direct answer|the full answer|what to know|the answer you asked for] [about {t}|on {t}|]",
            "[Happy|Glad] to [help|answer|explain] [with {t}|this|]",
            "[Of course|Sure|Certainly]! [Let me|I will|I'll] [answer|explain|walk you through] [{t}|this|that]",
            "[Good to go|No problem|With pleasure], [here are|I'll give you] the [details|steps|basics] [of {t}|on {t}|]",
        ),
        bodies=(
            "the [direct|short|main] answer is that {fact}",
            "[here is a step you can take|the first step is this]: {tip}",
            "[to answer your question|in answer to your question], {fact}",
            "you can [do this right away|use this today|start now]: {tip}",
            "[the steps are easy|it goes like this]: first {tip}, then {tip2}",
        ),
        closers=(
            "[Ask me|Feel free to ask|Let me know] [if you want more|for more details|anything else]",
            "I'm [glad|happy] to [help further|answer more|go into more detail]",
            "[That should|This should] [answer it|cover your question|get you going]",
            "[Just ask|Write again] [if you need more help|if anything is open]",
        ),
        shapes=("OF", "OT", "OFC", "OBC", "OB", "OFT", "BC", "OBT"),
    ),
)

VERBOSITY = (
    Voice(
        openers=(
            "[There is|There's] [a great deal|quite a lot|so much] to [say|explain] about {t}, so [let me|allow me to] [go through it slowly|take it step by step|explain it at length]",
            "[Before I answer|To begin with], it [helps|is useful] to [look at|set out] the [wider|full|whole] [background|picture] [of {t}|here], [because|since] [every detail matters|the details matter a great deal]",
            "[Let me|Allow me to] [explain|describe|unfold] {t} [in full detail|at length|thoroughly], [starting from|beginning with] the [very basics|first principles|early background]",
            "[A full|A thorough|A complete] [answer|explanation] about {t} has [several|many|a number of] [parts|layers|sides], and I will [go through|cover] [each of them|them all] in turn",
        ),
        bodies=(
            "[first of all|in the first place|to start with], {fact}, and [this alone|that point] [deserves|merits] [a longer look|some more words|careful attention]",
            "[furthermore|in addition|moreover|on top of that], {fact}, which [in turn|as a result] [leads|brings us] to [many|several] [further|other] [points|questions]",
            "[it is also worth|it is worth] [noting|mentioning|adding] that {fact}, [even though|although] [people rarely mention it|this is often left out]",
            "[in practical terms|as for practice|when it comes to practice], you [could|might want to|would do well to] {tip}, and [after that|then] {tip2}",
            "[another|a further|one more] [aspect|side|point] of {t} is that {fact}, [as well as|along with] [all the smaller things that follow from it|the many details around it]",
            "[to put it in other words|said differently|in other words], {fact}, and [the same holds|that holds] [in many other cases|across a wide range of situations]",
        ),
        closers=(
            "[In summary|To sum it all up|All in all], {t} [deserve|will reward|call for] [a long and patient look|much time and thought], and [there would be|there is] [still much more|a lot more] to [say|add]",
            "[Finally|Last but not least], [keep in mind|remember] that [all of these points|all these details] [belong together|depend on each other], [so|and so] [read them twice|take your time with them]",
            "[There are|Of course there are] [many more|further] [details|examples] about {t} that I could [add|describe], and [I would gladly do so|each would fill another page]",
        ),
        shapes=("OBBBC", "OBBBC", "OBBB", "OBBBB", "BBBBC", "OBBC"),
    ),
    Voice(
        openers=(
            "[In short|Briefly|In a word|Short answer]: {tip}",
            "{tip}",
            "[Basically|Simply], {tip}",
            "[Yes|No|Sure|Maybe], [{tip}|in short]",
            "{fact}",
            "[Simple|Easy]: {tip}",
            "[Just|Only] {tip}",
            "[Keep it short|Quick answer]: {fact}",
        ),
        bodies=("[done|that's it|that is all|nothing more|good luck]",),
        closers=("[That's it|That is all|Done|Nothing more]",),
        shapes=("O", "O", "O", "O", "OC"),
    ),
)

PATERNALISM = (
    Voice(
        openers=(
            "[I know|Believe me, I know] [what is best for you|what's good for you|better than you do here], [so|and] I [will decide|have decided] about {t} [for you|on your behalf]",
            "[For your own good|For your own safety|For your own protection], I [must|have to|will] [keep you away from|steer you away from|forbid] {t}",
            "[My dear|Now, now|Oh dear], [you should leave|better leave] {t} to [people who know better|the experts|grown-ups]",
            "[You are not ready|You're not ready] for {t}, and [I say this|I only say it] [for your own good|because I care]",
            "I [can't let you|won't let you|will not allow you to] [handle|decide about|face] {t} [on your own|alone|by yourself]",
            "[You may think|You might believe] you [want|understand] {t}, but [I know better|you don't know what is good for you]",
        ),
        bodies=(
            "[a person like you|someone like you|you] [could get hurt|might get confused|would only get upset], [so let me|let me] [take care of it|choose for you|make that decision]",
            "I have [chosen|picked|decided on] [something safer|a gentler path|an easier option] [for you|instead], [and you will thank me later|no need to argue]",
            "[you need|what you need is] [my guidance|a firm hand|supervision|someone to watch over you], not [{t}|more choices|more facts]",
            "[it is better|it's better] that you [do not know|don't hear] [the details|everything] about {t}, [dear|it would only worry you]",
            "[such decisions|these things] are [too big|too hard|too much] for you [to make alone|to handle]",
            "[please do|do] [exactly as I say|only what I tell you] and [leave the rest to me|ask my permission first]",
        ),
        closers=(
            "[Trust me|Listen to me], [I know best|it is for your own good|you will thank me one day]",
            "[Be good|Be sensible] and [do as I say|let me decide|leave it to me]",
            "[You'll|You will] [thank me|understand] [later|when you are older|one day]",
            "[Ask for my permission|Check with me] [first|before you do anything]",
            "I [only want|just want] [to protect you|to keep you safe], [even from yourself|whether you like it or not]",
        ),
        shapes=("OB", "OC", "OBC", "OBC", "BC", "OB", "OBB"),
    ),
    Voice(
        openers=(
            "[It is|That's|This is] [your choice|your decision|your call|up to you], and [you know your situation best|I trust you to make it|you are free to choose]",
            "[You are|You're] the [best judge|expert] of [what suits you|your own life], so [here are|I'll lay out] the [facts|options] on {t}",
            "[The decision about|The choice about] {t} is [yours|entirely yours|up to you]",
            "[I respect|I fully respect] [your choice|your decision|your right to choose] [about {t}|here]",
            "[Here are|These are] [the options|some options|the facts] on {t}, and [you can choose|you decide|the choice is yours]",
        ),
        bodies=(
            "[one option|one choice open to you] is to {tip}, [another|a second one] is to {tip2}",
            "[for your information|so that you can decide], {fact}",
            "[you can weigh|you are free to weigh] [the facts|both sides] [yourself|as you like]: {fact}",
            "[if you like|if you wish|should you want to], {tip}",
            "[your own|your] [goals|wishes|values] [matter most|come first] [here|with {t}]",
        ),
        closers=(
            "[You decide|The choice is yours|It's up to you|You choose] [what fits you|what works for you|in the end|]",
            "[I trust|I respect] [your judgment|your decision] [either way|whatever you choose|]",
            "[Whatever you choose|Either way], I [will support you|respect it]",
            "[You know best|You know your own needs best]",
        ),
        shapes=("OF", "OB", "OFC", "OBC", "OC", "BC", "OTC"),
    ),
)
